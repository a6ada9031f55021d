"""What the HTTP shells of the server and of the edge share: bodies, request ids, event streams, logs."""
