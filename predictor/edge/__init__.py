"""The always-on CPU process in front of the predictor: who may wake a GPU, and the APIs that people already use."""
