"""sdzero: Stable Diffusion on Kubernetes that costs nothing when idle and answers in seconds when it wakes."""

__version__ = "0.1.0"
