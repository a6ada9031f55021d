"""The server process: KServe's ModelServer in front of one engine process."""
