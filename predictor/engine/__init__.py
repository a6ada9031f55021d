"""The engine process: it owns the device, and steps the rows of every request in one batch."""
