"""HTTP/1.1 with one client, as uvicorn speaks it, and an end to waiting for what never comes.

uvicorn waits for ever for the head of a request, and for the rest of a body whose answer is out. Here a client has so
many seconds from connecting, or from its next word, to the end of a head. How long a body may take is for the route
to say (`routes/exchange.py`); between two requests uvicorn's own timer runs.
"""

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from predictor.asgi.access import request_id
from predictor.core.problems import InvalidRequest
from predictor.edge.routes.replies import openai_reply


class Connection(H11Protocol):  # type: ignore[misc]  # uvicorn is not looked into
    """One connection.

    h11 rather than the faster httptools, whatever is installed: it bounds what it keeps of a head or a trailer.

    Args:
        head_seconds: a client's time for the head of a request.
    """

    def __init__(self, *args: Any, head_seconds: float, **more: Any) -> None:
        super().__init__(*args, **more)
        self._head_seconds = head_seconds
        self._head: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The client is expected to speak first."""
        super().connection_made(transport)
        self._expect_head()

    def data_received(self, data: bytes) -> None:
        """More of a head, of a body, or of a body that nobody wants any more."""
        super().data_received(data)
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing more comes."""
        self._forget_head()
        super().connection_lost(exc)

    def send_400_response(self, _: str) -> None:
        """Bytes that are no HTTP lead to no route; they are answered in the API's shape, where they still can be."""
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            reply = openai_reply(InvalidRequest("connection: got bytes that are no request; allowed: HTTP/1.1"))
            own = [(b"x-request-id", request_id(None).encode()), (b"connection", b"close")]
            for event in (
                h11.Response(status_code=400, headers=[*reply.raw_headers, *own], reason=b"Bad Request"),
                h11.Data(data=bytes(reply.body)),
                h11.EndOfMessage(),
            ):
                self.transport.write(self.conn.send(event))
        if self.cycle is not None:
            self.cycle.disconnected = True  # whoever is at work on an answer has nobody to send it to
        self.transport.close()

    def on_response_complete(self) -> None:
        """The answer is out; a body that is not complete by now holds the connection no longer than a head may."""
        super().on_response_complete()
        if self.conn.their_state is h11.SEND_BODY:
            self._expect_head()

    def _expect_head(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            self._forget_head()
        elif self._head is None:
            self._head = self.loop.call_later(self._head_seconds, self.transport.close)

    def _forget_head(self) -> None:
        if self._head is not None:
            self._head.cancel()
            self._head = None
