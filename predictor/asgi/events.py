"""Server-sent events (WHATWG HTML, section 9.2)."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import msgspec
from starlette.responses import Response

from predictor.asgi.body import unless_hung_up

HEADERS = {"cache-control": "no-cache", "x-accel-buffering": "no"}  # nginx would hold events back


def encoded(event: str, data: object, id: str | None = None) -> bytes:
    """One event; `data` is encoded as JSON, which never breaks the line."""
    head = f"id: {id}\n" if id is not None else ""
    return f"{head}event: {event}\ndata: ".encode() + msgspec.json.encode(data) + b"\n\n"


class EventStream(Response):
    """Sends events as they come, and stops the work behind them when the client hangs up."""

    media_type = "text/event-stream"

    def __init__(self, events: AsyncGenerator[bytes, None]) -> None:
        super().__init__(headers=HEADERS)
        del self.headers["content-length"]
        self._events = events

    async def __call__(self, _: Any, receive: Any, send: Any) -> None:
        """Send every event in a chunk of its own."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await unless_hung_up(receive, self._send(send))

    async def _send(self, send: Any) -> None:
        async with aclosing(self._events) as events:
            async for event in events:
                await send({"type": "http.response.body", "body": event, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})
