"""The Kubernetes API as far as watching needs it: lists, watches, a pod's log, one answer of a pod.

ApiError
├── Refused   401, 403, 404: this account may not, or the cluster does not have it; asking again will not help
├── Gone      410: what is asked for is older than what the server remembers; list again
└── Away      everything else that may pass: no connection, 429, 5xx, half a line
"""

import socket
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing, asynccontextmanager
from types import TracebackType
from typing import Any, Self, TypeVar, cast

import httpx
import msgspec

from predictor.cluster.access import Access

SECONDS = 30.0  # for an answer that is no stream, and for a stream's beginning
WATCH_SECONDS = 300  # the server ends a watch then, and it is begun again where it ended
# Lets the kernel find out that the server's machine has died, which says nothing itself.
KEEPALIVE = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 15),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
)
Params = Mapping[str, str]
T = TypeVar("T")


class ApiError(Exception):
    """The API server has not done what it was asked."""


class Refused(ApiError):
    """It will not."""


class Gone(ApiError):
    """It has forgotten that version."""


class Away(ApiError):
    """It cannot now."""


class _Status(msgspec.Struct):
    code: int = 0
    message: str | None = None


class _ListMeta(msgspec.Struct, frozen=True, rename="camel"):
    resource_version: str = ""


class List(msgspec.Struct):
    """The objects of a collection and the version of the whole."""

    metadata: _ListMeta = _ListMeta()
    items: list[object] | None = None


class WatchEvent(msgspec.Struct):
    """One line of a watch: ADDED, MODIFIED, DELETED, BOOKMARK or ERROR, and the object as it is then."""

    type: str
    object: Any = None


class Api:
    """One API server; use it in `async with`."""

    def __init__(self, access: Access) -> None:
        self._access = access
        transport = httpx.AsyncHTTPTransport(
            verify=access.verify,
            proxy=access.proxy,
            trust_env=False,
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=4),
            socket_options=KEEPALIVE,
        )
        self._client = httpx.AsyncClient(transport=transport, trust_env=False, follow_redirects=False)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._client.aclose()

    async def list(self, path: str, params: Params) -> List:
        """All objects of a collection, as they are now.

        Raises:
            ApiError: see above.
        """
        return _decoded(await self.get(path, params), List)

    async def get(self, path: str, params: Params | None = None, seconds: float = SECONDS) -> bytes:
        """The body of an answer that is no stream.

        Raises:
            ApiError: see above.
        """
        async with self._answered(path, params or {}, read=seconds) as response:
            try:
                return await response.aread()
            except httpx.TransportError as error:
                raise Away(_words(error)) from None

    async def watch(self, path: str, params: Params, version: str) -> AsyncGenerator[WatchEvent, None]:
        """What becomes of a collection after `version`, until the server ends it.

        Raises:
            ApiError: see above; also in the middle.
        """
        more = {"watch": "1", "allowWatchBookmarks": "true", "timeoutSeconds": str(WATCH_SECONDS)}
        query = {**params, **more, "resourceVersion": version}
        async with aclosing(self.lines(path, query, WATCH_SECONDS + SECONDS)) as lines:
            async for line in lines:
                event = _decoded(line.encode(), WatchEvent)
                if event.type == "ERROR":
                    status = msgspec.convert(event.object, _Status)
                    raise _error(status.code, status.message or "the watch has failed")
                yield event

    async def lines(self, path: str, params: Params, seconds: float | None) -> AsyncGenerator[str, None]:
        """The lines of a stream; `seconds` without any end it.

        Raises:
            ApiError: see above; also in the middle.
        """
        async with self._answered(path, params, read=seconds) as response:
            try:
                async with aclosing(cast(AsyncGenerator[str, None], response.aiter_lines())) as lines:
                    async for line in lines:
                        if line:
                            yield line
            except httpx.TransportError as error:
                raise Away(_words(error)) from None

    @asynccontextmanager
    async def _answered(self, path: str, params: Params, read: float | None) -> AsyncGenerator[httpx.Response, None]:
        authorization = self._access.authorization()
        request = self._client.build_request(
            "GET",
            self._access.url + path,
            params=params,
            headers={"accept": "application/json"} | ({"authorization": authorization} if authorization else {}),
            timeout=httpx.Timeout(SECONDS, read=read),
            extensions={"sni_hostname": self._access.server_name} if self._access.server_name else None,
        )
        try:
            response = await self._client.send(request, stream=True)
        except httpx.TransportError as error:
            raise Away(_words(error)) from None
        try:
            if response.status_code != 200:
                raise _error(response.status_code, await _message(response))
            yield response
        finally:
            await response.aclose()


def _error(code: int, message: str) -> ApiError:
    kind = Refused if code in (401, 403, 404) else Gone if code == 410 else Away
    return kind(f"{code}: {message}")


async def _message(response: httpx.Response) -> str:
    try:
        return _decoded(await response.aread(), _Status).message or ""
    except (httpx.TransportError, Away):
        return response.reason_phrase


def _decoded(body: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.DecodeError as error:
        raise Away(f"the answer cannot be read: {error}") from None


def _words(error: httpx.TransportError) -> str:
    return f"no connection: {str(error) or type(error).__name__}"
