"""What a key has spent, the audit log, and what cold starts took.

GET  /v1/usage?since&until      per key: images, megapixel-steps, GPU seconds, cold starts caused, hits that saved one
GET  /v1/audit?since&limit      admin: the audit log, newest first
GET  /v1/cold-starts            the latest, phase by phase
GET  /v1/webhook-secret         with which this tenant's webhooks are signed
"""

import math
from collections.abc import Callable
from datetime import UTC, datetime

from starlette.responses import Response
from starlette.routing import Route

from predictor.asgi.replies import json_reply
from predictor.core.problems import InvalidField
from predictor.edge.routes.exchange import Exchange, Exchanges
from predictor.edge.stores.cold_starts import ColdStarts
from predictor.edge.stores.ledger import Ledger
from predictor.edge.webhooks import Signer

MOST = 1000  # lines of the audit log at once


class Account:
    """The handlers; `routes` lists them for the application."""

    def __init__(self, ledger: Ledger, cold_starts: ColdStarts, signer: Signer, clock: Callable[[], float]) -> None:
        self._ledger = ledger
        self._cold_starts = cold_starts
        self._signer = signer
        self._clock = clock

    def routes(self, exchanges: Exchanges) -> list[Route]:
        """The routes."""
        return [
            exchanges.route("/v1/usage", self.usage, "read"),
            exchanges.route("/v1/audit", self.audit, "admin"),
            exchanges.route("/v1/cold-starts", self.cold_starts, "read"),
            exchanges.route("/v1/webhook-secret", self.webhook_secret, "read"),
        ]

    async def usage(self, exchange: Exchange) -> Response:
        """The sums of the caller's key, of every key for an admin; this calendar month in UTC by default."""
        now = self._clock()
        query = exchange.query(since=moment, until=moment)
        month = datetime.fromtimestamp(now, UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
        since, until = query.get("since", month.timestamp()), query.get("until", now)
        await self._ledger.flush()
        sums = await self._ledger.usage(
            tenant=exchange.tenant,
            key_id=None if exchange.tenant is None else exchange.caller.key_id,
            since=since,
            until=until,
        )
        return json_reply({"object": "list", "since": since, "until": until, "data": sums})

    async def audit(self, exchange: Exchange) -> Response:
        """The newest lines."""
        query = exchange.query(since=moment, limit=count)
        await self._ledger.flush()
        lines = await self._ledger.tail(since=query.get("since", 0.0), limit=query.get("limit", 100))
        return json_reply({"object": "list", "data": lines})

    async def cold_starts(self, exchange: Exchange) -> Response:
        """The latest, newest first."""
        limit = exchange.query(limit=count).get("limit", 20)
        return json_reply({"object": "list", "data": await self._cold_starts.recent(limit)})

    async def webhook_secret(self, exchange: Exchange) -> Response:
        """In the form that Standard Webhooks' libraries take."""
        exchange.query()
        return json_reply({"secret": self._signer.secret(exchange.caller.tenant)})


def moment(name: str, text: str) -> float:
    """Seconds since the epoch, or an ISO 8601 moment with its offset."""
    try:
        value = float(text)
    except ValueError:
        try:
            parsed = datetime.fromisoformat(text)
        except ValueError:
            parsed = None
        value = parsed.timestamp() if parsed is not None and parsed.tzinfo else math.nan
    if not math.isfinite(value):
        raise InvalidField.of(name, text, "seconds since the epoch, or an ISO 8601 moment with its offset")
    return value


def count(name: str, text: str) -> int:
    """A whole number from 1."""
    if not (text.isascii() and text.isdecimal() and 1 <= int(text[:9]) <= MOST and len(text) < 9):
        raise InvalidField.of(name, text, f"1 to {MOST}")
    return int(text)
