"""A fake service whose every deed is known: the ruler is held against it before it is believed.

It speaks OpenAI's Images API (plain and streaming) and v2 REST, makes small pictures, and does wrong by rule: every
n-th request is lost, cut off, answered twice, and so on. What it did, and when on the machine's one clock
(`predictor.clock`), is told at GET /truth. `python -m loadtest.golden '{"service": 0.05, "lose": 50}'` serves it.
"""

import asyncio
import base64
import contextlib
import functools
import hashlib
import json
import struct
import sys
import zlib
from collections.abc import Callable
from typing import Any, Literal

import msgspec

from predictor.clock import now

Deed = Literal["ok", "lose", "cut", "twice", "wrong", "swap", "small", "refuse", "fail", "silent"]


class Script(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to do. Numbers are `every n-th request`, 0 for never; the first of the list that applies is done."""

    service: float = 0.02  # seconds of making one picture
    lose: int = 0  # hang up without a word
    cut: int = 0  # hang up in the middle of the answer
    twice: int = 0  # one picture too many; in a stream, the last one again
    wrong: int = 0  # other pixels
    swap: int = 0  # the picture of the request before
    small: int = 0  # another size
    refuse: int = 0  # 429 with a problem
    fail: int = 0  # 500 with a problem
    silent: int = 0  # never answer
    stalls: tuple[tuple[float, float], ...] = ()  # (start, seconds), from the first request: nothing is answered then
    idle: float = 0.0  # seconds without a request until it sleeps; 0 for never
    phases: tuple[tuple[str, float], ...] = ()  # of a start: name as in Server-Timing, and seconds
    untold: float = 0.0  # seconds of a start that no phase tells


class Truth(msgspec.Struct, frozen=True, kw_only=True):
    """What really happened to one request, in seconds on the machine's clock."""

    id: str  # its x-request-id
    deed: Deed
    received: float
    answered: float  # just before the answer was written, or the connection closed
    cold: bool
    woken: float  # seconds that it waited for a start, told or not


class Golden:
    """The service behind one port."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.truths: list[Truth] = []
        self._count = 0
        self._first: float | None = None
        self._last = float("-inf")
        self._awake_at = float("-inf")  # when the start that is going on will have ended
        self._before = picture("nobody", 0, "64x64")

    def deed(self, number: int) -> Deed:
        """What is done to the request of this number, from 1."""
        for name in ("lose", "cut", "twice", "wrong", "swap", "small", "refuse", "fail", "silent"):
            every = getattr(self.script, name)
            if every and number % every == 0:
                return name
        return "ok"

    async def request(self, path: str, headers: dict[str, str], body: bytes, write: Callable[[bytes], None]) -> bool:
        """Answer one POST; False if the connection must end."""
        script, received = self.script, now()
        self._count += 1
        self._first = received if self._first is None else self._first
        number = self._count
        deed = self.deed(number)
        cold = bool(script.idle) and (received - self._last > script.idle or received < self._awake_at)
        if cold and received >= self._awake_at:
            self._awake_at = received + sum(seconds for _, seconds in script.phases) + script.untold
        self._last = received
        woken = max(0.0, self._awake_at - received) if cold else 0.0
        if deed != "refuse":
            await asyncio.sleep(woken + script.service)
        self._last = max(self._last, now())
        for start, seconds in script.stalls:
            begin = self._first + start
            if begin <= now() < begin + seconds:
                await asyncio.sleep(begin + seconds - now())
        timing = [("queue", 0.0), ("denoise", script.service), ("total", script.service)]
        if woken:
            timing = [("wake", woken), *timing, *((f"cold-{name}", seconds) for name, seconds in script.phases)]
        facts = {
            "Server-Timing": ", ".join(f"{name};dur={1000 * seconds:.1f}" for name, seconds in timing),
            "x-sdzero-cold-start": str(cold).lower(),
            "x-sdzero-job": f"job_{number}",
        }
        # Noted before a byte leaves: whoever has read the answer must find a later moment on the clock.
        truth = Truth(
            id=headers.get("x-request-id", ""), deed=deed, received=received, answered=now(), cold=cold, woken=woken
        )
        self.truths.append(truth)
        keeps = self._answer(deed, path, body, facts, write)
        if deed == "silent":
            await asyncio.sleep(3600)
        return keeps

    def _answer(
        self, deed: Deed, path: str, body: bytes, facts: dict[str, str], write: Callable[[bytes], None]
    ) -> bool:
        if deed in ("lose", "silent"):
            return False
        if deed in ("refuse", "fail"):
            code, status = ("quota_exceeded", 429) if deed == "refuse" else ("engine_lost", 503)
            error: Any = {"message": f"{code} by rule", "code": code, "param": None, "type": "server_error"}
            error = {"error": error["message"], "code": code} if path.startswith("/v2") else {"error": error}
            write(response(status, json.dumps(error).encode()))
            return True
        asked = json.loads(body)
        v2 = path.startswith("/v2")
        if v2:
            given = asked["parameters"]
            prompt, size, images = asked["inputs"][0]["data"][0], "64x64", given.get("num_images", 1)
            if "width" in given:
                size = f"{given['width']}x{given['height']}"
        else:
            given, prompt, images = asked, asked["prompt"], asked.get("n", 1)
            size = "64x64" if asked.get("size", "auto") == "auto" else asked["size"]
        made = [picture(prompt, given["seed"] + number, size) for number in range(images)]
        files = list(made)
        if deed == "twice":
            files.append(made[-1])
        elif deed == "wrong":
            files[0] = picture(f"not {prompt}", given["seed"], size)
        elif deed == "swap":
            files[0] = self._before
        elif deed == "small":
            files[0] = picture(prompt, given["seed"], "8x8")
        self._before = made[0]
        texts = [base64.b64encode(file).decode() for file in files]
        if asked.get("stream"):
            seeds = [min(given["seed"] + number, given["seed"] + images - 1) for number in range(len(texts))]
            return self._stream(deed, texts, seeds, facts, write)
        if v2:
            output = {"name": "image", "datatype": "BYTES", "shape": [len(texts)], "data": texts}
            document: Any = {"model_name": "golden", "outputs": [output], "parameters": {"gpu_seconds": 0.01}}
        else:
            document = {"data": [{"b64_json": text} for text in texts], "x_sdzero": {"gpu_seconds": 0.01}}
        whole = response(200, json.dumps(document).encode(), facts)
        write(whole[: len(whole) // 2] if deed == "cut" else whole)
        return deed != "cut"

    def _stream(
        self, deed: Deed, texts: list[str], seeds: list[int], facts: dict[str, str], write: Callable[[bytes], None]
    ) -> bool:
        told = "".join(f"{name}: {value}\r\n" for name, value in facts.items())
        write(
            f"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n{told}Transfer-Encoding: chunked\r\n\r\n".encode()
        )
        for text, seed in zip(texts, seeds, strict=True):
            data = {"b64_json": text, "x_meta": {"seed": seed}, "x_sdzero": {"gpu_seconds": 0.01}}
            event = f"event: image_generation.completed\ndata: {json.dumps(data)}\n\n".encode()
            if deed == "cut":
                event = event[: len(event) // 2]
            write(f"{len(event):x}\r\n".encode() + event + b"\r\n")
        if deed == "cut":
            return False
        write(b"0\r\n\r\n")
        return True


@functools.lru_cache(maxsize=4096)
def picture(prompt: str, seed: int, size: str) -> bytes:
    """A PNG file in stripes that prompt, seed and size fix; no two are alike, as no two of a model's are."""
    width, height = map(int, size.split("x"))
    # One colour would do but for birthdays: among 5,000 requests two would share it.
    stripes = hashlib.sha256(f"{prompt}/{seed}/{size}".encode()).digest()[:30]
    rows = (b"\0" + (stripes * (width // 10 + 1))[: 3 * width]) * height
    parts = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)), (b"IDAT", zlib.compress(rows, 1))]
    content = b"\x89PNG\r\n\x1a\n"
    for name, data in [*parts, (b"IEND", b"")]:
        content += struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
    return content


def response(status: int, body: bytes, headers: dict[str, str] | None = None) -> bytes:
    """A whole HTTP/1.1 response of JSON."""
    told = "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
    head = f"HTTP/1.1 {status} -\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n{told}\r\n"
    return head.encode() + body


async def serve(script: Script, port: int = 0, ready: Callable[[int], None] = print) -> None:
    """Serve until cancelled; `ready` is told the port."""
    golden = Golden(script)

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await _exchange(golden, reader, writer):
                pass
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", port, backlog=4096, limit=2**24)
    ready(server.sockets[0].getsockname()[1])
    async with server:
        await server.serve_forever()


async def _exchange(golden: Golden, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    method, path, _ = head.split(" ", 2)
    headers = dict(line.split(": ", 1) for line in head.split("\r\n")[1:] if ": " in line)
    headers = {name.lower(): value for name, value in headers.items()}
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    if method == "POST":
        return await golden.request(path, headers, body, writer.write)
    writer.write(response(200, msgspec.json.encode(golden.truths) if path == "/truth" else b"{}"))
    return True


def main(argv: list[str]) -> int:
    """Serve the script in the first argument (JSON) on a free port, which is printed; until it is told to stop."""
    script = msgspec.json.decode(argv[0] if argv else "{}", type=Script)
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(script, int(argv[1]) if len(argv) > 1 else 0, lambda port: print(port, flush=True)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
