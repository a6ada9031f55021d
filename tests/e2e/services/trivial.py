"""The least that a Knative service in Python can be: it answers every request with two bytes. The platform's floor."""

import os
import signal
import socket

# The first process of a container gets no signal that it has not asked for.
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
server = socket.create_server(("", 8080), backlog=64)
while True:
    connection, _ = server.accept()
    with connection:
        # A probe connects and hangs up; then there is nothing to read, and nobody to answer.
        head = b""
        while part := connection.recv(65536):
            head += part
            if b"\r\n\r\n" in head:
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
                break
