"""Benchmarks: the predictor beside the plain lazy diffusers handler, measured in one run on one machine."""
