"""Thousands of clients in one event loop, and a predictor that answers each of them at once."""

import asyncio
import base64
import contextlib
import io
import json
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
from PIL import Image

from predictor.asgi.events import encoded
from tests.edge.predictors import ACCEPTED, DONE, STREAM

EVENT = re.compile(rb"event: (\S+)")
ENDS = {"image_generation.completed", "done", "failed", "cancelled", "error"}


@dataclass(eq=False)
class Client:
    """One connection: what it has got so far, until `over`."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    streams: bool
    beats: int = 0  # signs of life
    ends: list[str] = field(default_factory=list)

    async def listen(self) -> None:
        """Read all that comes until the connection ends."""
        if not self.streams:
            head = await self.reader.readuntil(b"\r\n\r\n")
            length = int(re.search(rb"content-length: (\d+)", head)[1])
            said = json.loads(await self.reader.readexactly(length))
            self.ends.append("done" if said.get("data") else str(said))
        # A stream's end is the server's to tell; what comes after an outcome would be a second one.
        async for line in self.reader:
            if line.startswith((b":", b"event: waking")):
                self.beats += 1
            if (event := EVENT.match(line)) and event[1].decode() in ENDS:
                self.ends.append(event[1].decode())
        self.writer.close()


async def client(
    port: int, key: str, method: str, path: str, body: dict | None = None, streams: bool = False
) -> Client:
    """A client that has sent its request and closes its connection after the answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**20)
    content = b"" if body is None else json.dumps(body).encode()
    head = f"{method} {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\nconnection: close\r\n"
    writer.write(f"{head}content-length: {len(content)}\r\n\r\n".encode() + content)
    return Client(reader, writer, streams)


@contextlib.asynccontextmanager
async def quick_predictor(port: int, revision: str) -> AsyncIterator[dict[str, int]]:
    """Accepts and answers every generation at once with a blank picture; yields how often it was asked for each."""
    asked: dict[str, int] = {}

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        id = re.search(r"x-request-id: (\S+)", head)[1]
        wanted = json.loads(await reader.readexactly(int(re.search(r"content-length: (\d+)", head)[1])))
        asked[id] = asked.get(id, 0) + 1
        parameters = DONE["parameters"] | {"model_revision": revision}
        done = DONE | {"id": id, "image": [blank], "seed": [wanted["seed"]], "parameters": parameters}
        writer.write(STREAM + ACCEPTED + encoded("done", done))
        with contextlib.suppress(ConnectionError):
            await writer.drain()
        writer.close()

    file = io.BytesIO()
    Image.new("RGB", (64, 64)).save(file, "png")
    blank = base64.b64encode(file.getvalue()).decode()
    async with await asyncio.start_server(answer, "127.0.0.1", port, backlog=1024):
        yield asked


def revision_of(capabilities: Path) -> str:
    """The revision of the model that the file tells of."""
    return str(msgspec.json.decode(capabilities.read_bytes())["revision"])
