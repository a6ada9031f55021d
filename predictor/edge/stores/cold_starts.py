"""This deployment's own cold starts, from which the next one's time is told."""

import msgspec
from sqlalchemy import select

from predictor.edge.stores.database import Database
from predictor.edge.stores.schema import cold_starts


class ColdStart(msgspec.Struct, frozen=True, kw_only=True):
    """One wait for a predictor that slept."""

    at: float  # when it was woken; seconds since the epoch
    seconds: float  # until it accepted the request that woke it
    phases: dict[str, float]  # seconds by phase, in the order in which they came; empty if it did not tell


class ColdStarts:
    """The cold starts of a database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, at: float, seconds: float, phases: dict[str, float]) -> None:
        """Write one down."""
        values = {"at": at, "seconds": seconds, "phases": msgspec.json.encode(phases).decode()}
        async with self._database.write() as connection:
            await connection.execute(cold_starts.insert(), values)

    async def recent(self, limit: int) -> list[ColdStart]:
        """The latest, newest first."""
        latest = select(cold_starts).order_by(cold_starts.c.at.desc(), cold_starts.c.id.desc()).limit(limit)
        async with self._database.read() as connection:
            return [
                ColdStart(at=row.at, seconds=row.seconds, phases=msgspec.json.decode(row.phases, type=dict[str, float]))
                for row in await connection.execute(latest)
            ]
