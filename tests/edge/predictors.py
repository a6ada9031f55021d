"""What the tests of the predictor's client share: what is asked, and servers that lie."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable

import msgspec
import pytest

from predictor.asgi.events import encoded
from predictor.core.request import GenerationRequest
from predictor.edge.answers import Update
from predictor.edge.predictor import Predictor

ASKED = GenerationRequest(
    prompt="a red circle on a blue background",
    negative_prompt="green",
    seed=7,
    steps=5,
    guidance_scale=4.5,
    height=128,
    width=128,
    sampler="euler",
    num_images=2,
    truncate_prompt=False,
)
SMALL = msgspec.structs.replace(ASKED, height=64, width=64, num_images=1, steps=4)  # of the fake engine
BAD_GATEWAY = b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 5\r\n\r\n<hr/>"
STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"
ACCEPTED = b'event: accepted\ndata: {"id":"a","prompt_tokens":3,"negative_prompt_tokens":0}\n\n'
DONE = {
    "model_name": "sd",
    "id": "a",
    "image": ["iVBORw0KGgo="],
    "seed": [7],
    "prompt_tokens": 3,
    "parameters": {
        "cold_start": True,
        "model_revision": "r",
        "fingerprint": "f",
        "negative_prompt_tokens": 1,
        "gpu_seconds": 1,
        "server_timing": "queue;dur=1.0, total;dur=2500.0, cold-engine-torch;dur=3000.0",
    },
}


def done(**changes: object) -> bytes:
    return encoded("done", DONE | changes)


@pytest.fixture
async def connect() -> AsyncIterator[Callable[..., Predictor]]:
    """Clients of predictors, closed afterwards."""
    made = []

    def new(url: str, model: str = "sd") -> Predictor:
        made.append(Predictor(url, model))
        return made[-1]

    yield new
    for one in made:
        await one.close()


@contextlib.asynccontextmanager
async def liar(*replies: bytes | None) -> AsyncIterator[tuple[str, list[bytes]]]:
    """A server that gives one connection after another these bytes, the last to all others, and hangs up.

    None keeps the connection open without a word. Yields its address and the requests that came.
    """
    came: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next((int(line[15:]) for line in head.lower().splitlines() if line.startswith(b"content-length:")), 0)
        came.append(head + await reader.readexactly(length))
        reply = replies[min(len(came), len(replies)) - 1]
        if reply is None:
            await reader.read()
        else:
            writer.write(reply)
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    async with await asyncio.start_server(answer, "127.0.0.1") as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", came


async def heard(updates: AsyncGenerator[Update, None]) -> list[Update]:
    return [update async for update in updates]


def ask(predictor: Predictor, request: GenerationRequest = SMALL, seconds: float = 30.0, **more) -> AsyncGenerator:
    return predictor.generate("gen_1", request, seconds=seconds, previews=False, **more)
