"""What clients hear whose requests are not done when an edge that was told to stop has waited long enough."""

import asyncio
from collections.abc import Callable
from typing import Any

from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from predictor.core.problems import Draining, Problem

SOON = 1.0  # seconds; another edge is there already


class Leaving:
    """ASGI middleware: uvicorn cancels what is open when its grace is over, and would answer it with a bare 500.

    Args:
        app: what stands behind.
        reply: the response to a problem on this path.
    """

    def __init__(self, app: ASGIApp, reply: Callable[[Problem, str], Response]) -> None:
        self._app = app
        self._reply = reply

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass an exchange on."""
        started = False

        async def noted(message: Any) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(scope, receive, noted)
        except asyncio.CancelledError:
            if started or scope["type"] != "http":
                raise
            problem = Draining("this edge is going away; ask again, and another one answers", retry_after=SOON)
            await self._reply(problem, scope["path"])(scope, receive, send)
