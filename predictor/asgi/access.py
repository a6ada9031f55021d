"""Around every HTTP exchange: its id, and the last net under it."""

import re
import uuid
from collections.abc import Callable
from typing import Any

import structlog
from starlette.datastructures import MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from predictor.core.problems import InternalError, InvalidRequest, Problem

SANE_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
BUG = "internal error; the server's log has the cause under this request's id"
TWO_LENGTHS = "Content-Length: got Transfer-Encoding as well; allowed: one of them"
log = structlog.get_logger("sdzero.http")


def request_id(given: str | None) -> str:
    """The caller's `x-request-id` if it can stand in a header and a log, else a fresh one."""
    return given if given is not None and SANE_ID.fullmatch(given) else uuid.uuid4().hex


class Access:
    """ASGI middleware: `x-request-id` on every response, and no exception's text in any.

    KServe sets its own handler of `Exception` when it starts, which tells the caller the exception's type and text;
    a middleware stands before that handler.

    Args:
        app: what stands behind.
        reply: the response to a problem on this path.
    """

    def __init__(self, app: ASGIApp, reply: Callable[[Problem, str], Response]) -> None:
        self._app = app
        self._reply = reply

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass an exchange on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        id = scope.setdefault("state", {})["id"] = request_id(headers.get(b"x-request-id", b"").decode("latin-1"))
        started = False

        async def with_id(message: Any) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                MutableHeaders(scope=message)["x-request-id"] = id
            await send(message)

        if b"content-length" in headers and b"transfer-encoding" in headers:
            # Whoever stands in front may have read another end of the body than we do (RFC 9112, section 6.1).
            reply = self._reply(InvalidRequest(TWO_LENGTHS), scope["path"])
            reply.headers["connection"] = "close"
            await reply(scope, receive, with_id)
            return
        try:
            await self._app(scope, receive, with_id)
        except Exception:
            log.exception("bug", request_id=id, path=scope["path"])
            if not started:
                await self._reply(InternalError(BUG), scope["path"])(scope, receive, with_id)
