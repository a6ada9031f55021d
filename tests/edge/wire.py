"""Bytes on a connection, as clients send them that mean no good."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress

LONG = 20.0  # seconds; what should come has come by then, or will not


@contextmanager
def connected(edge) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", edge.http_port), timeout=LONG) as client:
        yield client


def until_closed(client: socket.socket) -> bytes:
    """All that comes until the edge closes the connection; fails if it does not."""
    came = b""
    try:
        while data := client.recv(65536):
            came += data
    except ConnectionResetError:  # it was closed while we were still sending
        pass
    return came


def exchanged(edge, data: bytes) -> bytes:
    """What the edge says to these bytes before it closes the connection."""
    with connected(edge) as client:
        with suppress(ConnectionError):
            client.sendall(data)
        return until_closed(client)


def head(method: str, path: str, **headers: str) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode()
