"""What the Kubernetes API says of a start: watched, never asked of the predictor, so that nothing wakes it."""
