"""HTTP/1.1 for a load generator: no hidden retry, no limit of its own, a connection kept for the next request.

Locust's FastHttpUser would not do: its client asks again, unseen, when a connection breaks before the answer (so a lost
request looks like a slow one and reaches the server twice), lets ten requests wait for each other, and gives up after
60 s, which is shorter than many cold starts. Blocking sockets; under gevent's patches they yield.
"""

import http.client
import select
import socket
import ssl
import time
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

# Below the five seconds after which common servers close an idle connection: a race would look like a lost request.
KEEP: Final = 2.0


@dataclass
class Connection:
    """One connection; `used` is when it last ended an exchange (time.monotonic)."""

    http: http.client.HTTPConnection
    used: float


class Connections:
    """To one origin.

    Args:
        url: http:// or https://, host and port; a path before those of the requests if wanted.
        timeout: seconds without a byte after which a socket gives up; the whole request's limit is the caller's.
        verify: whether the server's certificate must be valid.
    """

    def __init__(self, url: str, timeout: float, *, verify: bool = True) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"host: got {url!r}; allowed: http://HOST[:PORT] or https://HOST[:PORT]")
        self.prefix = parts.path.rstrip("/")
        self._host, self._port, self._timeout = parts.hostname, parts.port, timeout
        self._tls = None
        if parts.scheme == "https":
            self._tls = ssl.create_default_context() if verify else ssl._create_unverified_context()  # noqa: S323
        self._idle: list[Connection] = []

    def resolve(self) -> None:
        """Ask for the host's address once, so that no request has to wait for the first resolver.

        Raises:
            OSError: there is no such host.
        """
        socket.getaddrinfo(self._host, self._port or (80 if self._tls is None else 443), type=socket.SOCK_STREAM)

    def take(self) -> Connection:
        """One that stands: kept from before, or new.

        Raises:
            OSError: nobody listens there.
        """
        while self._idle:
            connection = self._idle.pop()
            if time.monotonic() - connection.used < KEEP and not _ended(connection.http):
                return connection
            connection.http.close()
        fresh: http.client.HTTPConnection
        if self._tls is None:
            fresh = http.client.HTTPConnection(self._host, self._port, timeout=self._timeout)
        else:
            fresh = http.client.HTTPSConnection(self._host, self._port, timeout=self._timeout, context=self._tls)
        fresh.connect()
        return Connection(fresh, time.monotonic())

    def give_back(self, connection: Connection) -> None:
        """After an answer that was read to its end."""
        if connection.http.sock is None:  # the server wanted it closed
            return
        connection.used = time.monotonic()
        self._idle.append(connection)

    def close(self) -> None:
        """Those that nobody uses."""
        while self._idle:
            self._idle.pop().http.close()


def _ended(connection: http.client.HTTPConnection) -> bool:
    """Whether an idle connection has something to say, which can only be its end."""
    if connection.sock is None:
        return True
    poll = select.poll()
    poll.register(connection.sock, select.POLLIN | select.POLLHUP)
    return bool(poll.poll(0))
