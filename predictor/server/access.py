"""Around every HTTP exchange: its id, and the last net under it."""

from typing import Any

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Receive, Scope, Send

from predictor.core.problems import InternalError
from predictor.server.journal import BUG, log, request_id
from predictor.server.replies import problem_reply


class Access:
    """ASGI middleware: `x-request-id` on every response, and no exception's text in any.

    KServe sets its own handler of `Exception` when it starts, which tells the caller the exception's type and text;
    a middleware stands before that handler.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass an exchange on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = dict(scope["headers"]).get(b"x-request-id", b"").decode("latin-1")
        id = scope.setdefault("state", {})["id"] = request_id(given)
        started = False

        async def with_id(message: Any) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                MutableHeaders(scope=message)["x-request-id"] = id
            await send(message)

        try:
            await self._app(scope, receive, with_id)
        except Exception:
            log.exception("bug", request_id=id, path=scope["path"])
            if not started:
                await problem_reply(InternalError(BUG))(scope, receive, with_id)
