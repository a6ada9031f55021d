"""A way to the predictor on which everything that passes is counted."""

import contextlib
import select
import socket
import threading
from collections.abc import Iterator

PIECE = 65536  # bytes


class Counted:
    """Takes TCP connections for a server on this machine and passes their bytes on.

    `connections` and `sent`, the bytes towards the server, are counted when they come: before the server sees them,
    and whether or not there is one.
    """

    def __init__(self, port: int) -> None:
        self.connections = 0
        self.sent = bytearray()
        self._port = port
        self._counting = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    @property
    def traffic(self) -> tuple[int, int]:
        """Connections and bytes so far."""
        with self._counting:
            return self.connections, len(self.sent)

    def asked(self, path: str) -> int:
        """How many requests for a path that ends so have passed."""
        with self._counting:
            return self.sent.count(f"{path} HTTP/1.1\r\n".encode())

    def close(self) -> None:
        # Only this wakes a thread that waits in accept().
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            with self._counting:
                self.connections += 1
            threading.Thread(target=self._pass_on, args=(client,), daemon=True).start()

    def _pass_on(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self._port)) as server:
            while True:
                for source in select.select((client, server), (), ())[0]:
                    piece = source.recv(PIECE)
                    if not piece:
                        return  # and so the other end is told as well
                    if source is client:
                        with self._counting:
                            self.sent += piece
                    (server if source is client else client).sendall(piece)


@contextlib.contextmanager
def counted(port: int) -> Iterator[Counted]:
    """A counted way to the server at `port`."""
    way = Counted(port)
    try:
        yield way
    finally:
        way.close()


@contextlib.contextmanager
def nothing_passes(way: Counted) -> Iterator[None]:
    """A time in which nobody may send the server anything, nor connect."""
    before = way.traffic
    yield
    assert way.traffic == before
