"""Offline tools: training of the demo model, benchmarks, the demo itself."""
