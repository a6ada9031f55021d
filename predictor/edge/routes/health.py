"""Of the edge itself; neither route asks the predictor anything.

GET  /healthz    the process runs
GET  /readyz     it can take requests: its database answers
"""

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from predictor.asgi.replies import json_reply
from predictor.edge.stores.database import Database


class Health:
    """The handlers; `routes` lists them for the application."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def routes(self) -> list[Route]:
        """The routes."""
        return [Route("/healthz", self.live), Route("/readyz", self.ready)]

    async def live(self, _: Request) -> Response:
        """200."""
        return json_reply({"live": True})

    async def ready(self, _: Request) -> Response:
        """200, or a problem when the database is away."""
        await self._database.ping()
        return json_reply({"ready": True})
