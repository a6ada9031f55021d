"""Of the edge itself; neither route asks the predictor anything.

GET  /healthz         the process runs
GET  /readyz          it can take requests: its database answers
GET  /openapi.json    what all routes take and answer
"""

from collections.abc import Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from predictor.asgi.replies import json_reply
from predictor.core.request import Capabilities
from predictor.edge import openapi
from predictor.edge.stores.database import Database

Known = Callable[[], Capabilities | None]  # what the model can do, if anybody has told


class Health:
    """The handlers; `routes` lists them for the application."""

    def __init__(self, database: Database, names: tuple[str, ...], public_url: str, known: Known) -> None:
        self._database = database
        self._names = names
        self._public_url = public_url
        self._known = known
        self._documented: tuple[Capabilities | None, dict[str, Any]] | None = None

    def routes(self) -> list[Route]:
        """The routes."""
        return [
            Route("/healthz", self.live),
            Route("/readyz", self.ready),
            Route("/openapi.json", self.document),
        ]

    async def live(self, _: Request) -> Response:
        """200."""
        return json_reply({"live": True})

    async def ready(self, _: Request) -> Response:
        """200, or a problem when the database is away."""
        await self._database.ping()
        return json_reply({"ready": True})

    async def document(self, _: Request) -> Response:
        """The OpenAPI document, with the model's limits once they are known."""
        if self._documented is None or self._documented[0] is not self._known():
            self._documented = self._known(), openapi.document(self._names, self._known(), self._public_url)
        return json_reply(self._documented[1])
