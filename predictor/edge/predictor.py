"""The edge's client of the predictor: one request, from whatever state the predictor is in, to its pictures.

    unreachable ─► a proxy's 502, 503, 504 ─► 503 not_ready, with a phase ─► accepted ─► progress … ─► pictures
    └────────────────────── Waking, tried again ─────────────────────────┘

Nothing is sent but on behalf of a caller: at zero replicas each request, be it a probe, starts a GPU.
"""

import asyncio
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Mapping
from contextlib import aclosing, asynccontextmanager, suppress
from typing import cast

import httpx
import msgspec

from predictor.core.problems import DeadlineExceeded, Problem
from predictor.core.request import PARAMETERS, Capabilities, GenerationRequest
from predictor.edge.answers import Accepted, NotYet, Pictures, Progress, Update, Waking, decoded, lost, refusal, update
from predictor.edge.sse import Event, EventReader, EventTooLarge

LARGEST_EVENT = 64 * 2**20  # bytes
LARGEST_BODY = 2**20  # of a problem, or the capabilities
CONNECT_SECONDS = 5.0  # the address of a pod that has gone may swallow packets without a word
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 0.5  # seconds between two tries while it starts; doubles. A start takes seconds
LAST_BYTES = 1.0  # seconds for the end of a stream whose last event is there
PLAIN = {"accept-encoding": "identity"}
# Lets the kernel find out within half a minute that the other machine has died, which says nothing itself.
KEEPALIVE = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 15),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
)
__all__ = ["Accepted", "Pictures", "Predictor", "Progress", "Waking"]


class Predictor:
    """Speaks the predictor's REST API; `requests` counts what it has sent.

    Args:
        url: where `/v2` is.
        model: the name in the predictor's paths.
        client: to send with instead of one of its own.
    """

    def __init__(self, url: str, model: str, client: httpx.AsyncClient | None = None) -> None:
        self.requests = 0
        self._base = f"{url.rstrip('/')}/v2/models/{model}"
        self._client = client or _client()
        self._owned = client is None

    async def capabilities(self, seconds: float = 600.0) -> Capabilities:
        """What the model can do; wakes the predictor, and waits until it can tell.

        Raises:
            DeadlineExceeded: it was not ready within `seconds`.
            Problem: what it refused with.
        """
        tries = _Tries(seconds)
        while True:
            request = self._client.build_request("GET", f"{self._base}/capabilities", headers=PLAIN)
            try:
                async with self._answered(request, tries.deadline) as response:
                    return decoded(await _body(response, tries.deadline), Capabilities, "the model's capabilities")
            except NotYet as not_yet:
                await tries.pause(not_yet.phase)

    async def generate(
        self,
        id: str,
        request: GenerationRequest,
        *,
        seconds: float,
        previews: bool,
        parameters: Collection[str] = tuple(PARAMETERS),
        trace: Mapping[str, str] | None = None,
    ) -> AsyncGenerator[Update, None]:
        """Waking as long as it starts, then Accepted, Progress of each step, and Pictures.

        Closing the generator closes the connection, and with it the predictor drops what it has begun.

        Args:
            id: `x-request-id`, in the logs of both.
            request: all of it is sent, so that nothing is the predictor's to choose.
            seconds: for everything, waking included.
            previews: whether Progress brings pictures.
            parameters: those that the model takes, if it may be one that does not take all.
            trace: headers that name the trace which this is part of.

        Raises:
            DeadlineExceeded: the pictures were not done within `seconds`.
            PredictorLost: it went away after it had accepted, or what it says cannot be read.
            Problem: what it refused the request with, or ended it.
        """
        fields = msgspec.structs.asdict(request) | {"image_format": "png"}
        body = {name: value for name, value in fields.items() if name in parameters}
        content = msgspec.json.encode(body | ({"previews": True} if previews else {}))
        headers = PLAIN | {"content-type": "application/json", "x-request-id": id} | dict(trace or {})
        tries = _Tries(seconds)
        while True:
            post = self._client.build_request("POST", f"{self._base}/generate_stream", content=content, headers=headers)
            try:
                async with (
                    self._answered(post, tries.deadline) as response,
                    aclosing(_updates(response, request.num_images, tries.deadline)) as updates,
                ):
                    async for said in updates:
                        yield said
                    return
            except NotYet as not_yet:
                phase = not_yet.phase
            yield Waking(phase)
            await tries.pause(phase)

    async def close(self) -> None:
        """Close the connections; a client that was given stays open."""
        if self._owned:
            await self._client.aclose()

    @asynccontextmanager
    async def _answered(self, request: httpx.Request, deadline: float) -> AsyncIterator[httpx.Response]:
        """The open response, if it is 200; raises NotYet or the problem otherwise."""
        self.requests += 1
        try:
            async with _until(deadline):
                response = await self._client.send(request, stream=True)
        except httpx.TransportError:
            raise NotYet("unreachable") from None
        try:
            if response.status_code != 200:
                raise refusal(response.status_code, await _body(response, deadline))
            yield response
        finally:
            await response.aclose()


class _Tries:
    """When to try again. `deadline` is in the event loop's seconds."""

    def __init__(self, seconds: float) -> None:
        self._loop = asyncio.get_running_loop()
        self.deadline = self._loop.time() + seconds
        self._pause = FIRST_PAUSE

    async def pause(self, phase: str) -> None:
        left = self.deadline - self._loop.time()
        await asyncio.sleep(max(0.0, min(self._pause, left)))
        if left <= self._pause:
            raise DeadlineExceeded(f"the predictor was not ready in time; it was seen last: {phase}")
        self._pause = min(2 * self._pause, LONGEST_PAUSE)


async def _updates(
    response: httpx.Response, images: int, deadline: float
) -> AsyncGenerator[Accepted | Progress | Pictures, None]:
    async with aclosing(_events(response, deadline)) as events:
        async for event in events:
            said = update(event, images)
            if isinstance(said, Pictures):
                # To its end: else the predictor sees a hangup, and the connection cannot be used again.
                with suppress(Problem, TimeoutError):
                    async with asyncio.timeout(LAST_BYTES):
                        async for _ in events:
                            pass
                yield said
                return
            if said is not None:
                yield said
    raise lost("the predictor went away before the images were done")


async def _events(response: httpx.Response, deadline: float) -> AsyncGenerator[Event, None]:
    reader = EventReader(LARGEST_EVENT)
    async with aclosing(cast(AsyncGenerator[bytes, None], response.aiter_raw())) as pieces:
        while True:
            try:
                async with _until(deadline):
                    piece = await anext(pieces, None)
            except httpx.TransportError:
                return
            if piece is None:
                return
            try:
                for event in reader.feed(piece):
                    yield event
            except EventTooLarge as error:
                raise lost(f"the predictor sent {error}") from None


async def _body(response: httpx.Response, deadline: float) -> bytes:
    """A body that is no stream, read no further than any that the predictor itself sends."""
    body = bytearray()
    try:
        async with _until(deadline):
            async for piece in response.aiter_raw():
                body += piece
                if len(body) > LARGEST_BODY:
                    break
    except httpx.TransportError:
        raise NotYet("unreachable") from None
    return bytes(body)


@asynccontextmanager
async def _until(deadline: float) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout_at(deadline):
            yield
    except TimeoutError:
        raise DeadlineExceeded("the time ran out before the images were done") from None


def _client() -> httpx.AsyncClient:
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=8, keepalive_expiry=30.0)
    transport = httpx.AsyncHTTPTransport(limits=limits, trust_env=False, socket_options=KEEPALIVE)
    timeout = httpx.Timeout(None, connect=CONNECT_SECONDS)
    return httpx.AsyncClient(transport=transport, timeout=timeout, trust_env=False, follow_redirects=False)
