"""A small API server on a real socket: lists, watches in chunks, logs, a pod's own port; it does what a test says."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

from predictor.cluster.access import Access

END = object()  # ends a stream as a server does whose time is over
CUT = object()  # closes the connection in the middle of a line


@dataclass(frozen=True)
class Asked:
    """One request."""

    path: str
    query: dict[str, str]
    headers: dict[str, str]

    @property
    def resource(self) -> str:
        return self.path.rsplit("/", 1)[-1]


@dataclass
class Stream:
    """The body of an open watch or log: what is put in goes out as a chunk of its own."""

    parts: "asyncio.Queue[Any]" = field(default_factory=asyncio.Queue)

    def send(self, *lines: object) -> None:
        for line in lines:
            self.parts.put_nowait(line)


Answer = tuple[int, object] | Stream
REASONS = {200: "OK", 400: "Bad Request", 401: "Unauthorized", 403: "Forbidden", 404: "Not Found", 410: "Gone"}


class ApiServer:
    """`answer` says what becomes of each request: a status and a JSON body, or a stream that the test fills."""

    def __init__(self, answer: Callable[[Asked], Answer]) -> None:
        self.asked: list[Asked] = []
        self.url = ""
        self._answer = answer

    def access(self, token: str | None = None) -> Access:
        return Access(self.url, True, lambda: token)

    def paths(self, resource: str) -> list[dict[str, str]]:
        """The queries of what was asked of a resource."""
        return [asked.query for asked in self.asked if asked.resource == resource]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
                target = urlsplit(head[0].split()[1])
                headers = {k.lower(): v for k, _, v in (line.partition(": ") for line in head[1:]) if k}
                query = {name: values[0] for name, values in parse_qs(target.query).items()}
                asked = Asked(target.path, query, headers)
                self.asked.append(asked)
                said = self._answer(asked)
                if isinstance(said, Stream):
                    if not await self._stream(said, writer):
                        break
                else:
                    status, body = said
                    content = json.dumps(body).encode()
                    writer.write(f"HTTP/1.1 {status} {REASONS.get(status, 'Odd')}\r\n".encode())
                    writer.write(f"content-length: {len(content)}\r\n\r\n".encode() + content)
                    await writer.drain()
        writer.close()

    async def _stream(self, stream: Stream, writer: asyncio.StreamWriter) -> bool:
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        await writer.drain()
        while True:
            part = await stream.parts.get()
            if part is END:
                writer.write(b"0\r\n\r\n")
                await writer.drain()
                return True
            if part is CUT:
                part = b'{"type":"MODI'
                writer.write(f"{len(part):x}\r\n".encode() + part + b"\r\n")
                await writer.drain()
                return False
            content = part if isinstance(part, bytes) else json.dumps(part).encode() + b"\n"
            writer.write(f"{len(content):x}\r\n".encode() + content + b"\r\n")
            await writer.drain()


@contextlib.asynccontextmanager
async def api_server(answer: Callable[[Asked], Answer]) -> AsyncIterator[ApiServer]:
    """Listens on 127.0.0.1 until the block ends; whatever is still open is closed then."""
    api = ApiServer(answer)
    open_now: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        open_now.add(task)
        try:
            await api.serve(reader, writer)
        except asyncio.CancelledError:
            writer.close()
        finally:
            open_now.discard(task)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    api.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield api
    finally:
        server.close()
        for task in list(open_now):
            task.cancel()
        await asyncio.gather(*open_now, return_exceptions=True)


def listing(version: str, *items: object) -> tuple[int, object]:
    """A list at a version; an empty one is null, as Go writes it."""
    return 200, {"kind": "List", "metadata": {"resourceVersion": version}, "items": list(items) or None}


def status(code: int, message: str) -> tuple[int, object]:
    """A refusal as the API server words it."""
    return code, {"kind": "Status", "status": "Failure", "code": code, "message": message}


def event(type: str, item: object) -> dict[str, object]:
    """A line of a watch."""
    return {"type": type, "object": item}


def pod(uid: str, version: str, **status: object) -> dict[str, object]:
    """A pod that has just been made, or is further on by `status`."""
    return {
        "metadata": {
            "name": f"pod-{uid}",
            "uid": uid,
            "resourceVersion": version,
            "creationTimestamp": "2026-01-02T03:04:05Z",
        },
        "spec": {"containers": [{"name": "main"}]},
        "status": status,
    }
