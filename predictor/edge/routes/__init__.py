"""HTTP in and out: a file for each dialect, and what they have in common (`exchange.py`)."""
