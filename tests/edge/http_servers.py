"""A real HTTP server that remembers what came and answers as a test says."""

import contextlib
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass(frozen=True)
class Came:
    """One request; names of headers in lower case."""

    path: str
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True)
class Answer:
    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Web:
    port: int
    came: list[Came] = field(default_factory=list)
    connections: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@contextlib.contextmanager
def web(answer: Callable[[Came], Answer], tls: ssl.SSLContext | None = None) -> Iterator[Web]:
    """Listens on 127.0.0.1; each request is answered in a thread of its own."""

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            length = int(self.headers.get("content-length") or 0)
            headers = {name.lower(): value for name, value in self.headers.items()}
            came = Came(self.path, headers, self.rfile.read(length))
            here.came.append(came)
            said = answer(came)
            # Whoever has gone does not hear it.
            with contextlib.suppress(ConnectionError):
                self.send_response(said.status)
                for name, value in ({"content-length": str(len(said.body))} | said.headers).items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(said.body)

        do_GET = do_POST = answer  # noqa: N815  # http.server's names

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        def get_request(self):
            accepted = super().get_request()
            here.connections += 1
            return accepted

        def handle_error(self, *_: object) -> None:
            pass  # a client that hangs up in the middle

    with Server(("127.0.0.1", 0), Handler) as server:
        here = Web(server.server_port)
        if tls is not None:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield here
        finally:
            server.shutdown()
            thread.join()
