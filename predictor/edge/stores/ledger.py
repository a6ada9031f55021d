"""The ledger: who did what, with which outcome, at what cost. Lines are added and never changed.

What a job comes to is booked in the transaction that ends it (`insert`); what has no job, such as a refused request,
is noted in memory and flushed twice a second.
"""

import asyncio
import hashlib
import hmac
from collections.abc import Iterable
from typing import Any

import msgspec
from sqlalchemy import Row, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from predictor.edge.stores.database import Database, upsert
from predictor.edge.stores.schema import ledger

MOST_NOTES = 100_000  # about 100 MB, if the database is away for long
CHUNK = 1000  # lines of one statement


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that somebody did."""

    at: float  # seconds since the epoch
    tenant: str
    key_id: str
    request_id: str
    action: str  # generate, cached, joined, refused, key.create, key.revoke, …
    outcome: str  # ok, or a problem's code
    job_id: str | None = None  # booked once at most
    images: int = 0
    megapixel_steps: float = 0.0
    gpu_seconds: float = 0.0
    cold_starts: int = 0  # that it caused
    cache_hits: int = 0
    prompt: str | None = None  # as `Ledger.prompt` shows it
    facts: dict[str, Any] = {}


class Entry(Line, frozen=True, kw_only=True):
    """A line in its place."""

    number: int  # grows with every line


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """What one key came to in a period."""

    tenant: str
    key_id: str
    requests: int  # for pictures, however they ended
    failed: int  # of them: refused, failed or cancelled
    images: int
    megapixel_steps: float
    gpu_seconds: float
    cold_starts: int
    cache_hits: int


async def insert(connection: AsyncConnection, lines: Iterable[Line]) -> None:
    """Add lines in the caller's transaction.

    Raises:
        IntegrityError: a line's job was booked before, or comes twice.
    """
    if rows := [_row(line) for line in lines]:
        await connection.execute(ledger.insert(), rows)


class Ledger:
    """The ledger of a database.

    Args:
        secret: the deployment's; the key of the hash that stands for a prompt.
        audit_prompts: whether prompts are kept as they are.
    """

    def __init__(self, database: Database, secret: bytes, *, audit_prompts: bool = False) -> None:
        self.dropped = 0  # notes that were lost because the database was away for too long
        self._database = database
        self._secret = secret
        self._audit_prompts = audit_prompts
        self._notes: list[Line] = []
        self._writing = asyncio.Lock()

    def prompt(self, prompt: str) -> str:
        """What the ledger may keep of a prompt: a hash that tells equal prompts, or the prompt where it is audited."""
        if self._audit_prompts:
            return prompt.replace("\0", "\N{SYMBOL FOR NULL}")  # the one character that PostgreSQL cannot store
        digest = hmac.digest(self._secret, b"prompt:" + prompt.encode(), hashlib.sha256)
        return f"hmac-sha256:{digest.hex()}"

    async def add(self, lines: Iterable[Line]) -> None:
        """Add lines in a transaction of their own.

        Raises:
            IntegrityError: a line's job was booked before, or comes twice.
            StoreUnavailable: the database does not answer.
        """
        async with self._database.write() as connection:
            await insert(connection, lines)

    def note(self, line: Line) -> None:
        """Keep a line in memory until the next `flush`."""
        if len(self._notes) < MOST_NOTES:
            self._notes.append(line)
        else:
            self.dropped += 1

    async def flush(self) -> None:
        """Write what was noted; a line whose job was booked before is left out.

        Who is cancelled here does not stop the writing; the next flush waits for its end.

        Raises:
            StoreUnavailable: the database does not answer; the lines stay in memory for the next time.
        """
        # Cancelled within a commit, nobody would know whether the lines are there.
        await asyncio.shield(self._write())

    async def _write(self) -> None:
        async with self._writing:
            notes, self._notes = self._notes, []
            if not notes:
                return
            try:
                async with self._database.write() as connection:
                    # If the answer to a commit was lost, these lines may be there already.
                    statement = upsert(connection, ledger).on_conflict_do_nothing(index_elements=[ledger.c.job_id])
                    for start in range(0, len(notes), CHUNK):
                        await connection.execute(statement, [_row(line) for line in notes[start : start + CHUNK]])
            except BaseException:
                self._notes = notes + self._notes
                raise

    async def usage(
        self, *, tenant: str | None = None, key_id: str | None = None, since: float, until: float
    ) -> list[Usage]:
        """What each key came to from `since` to before `until`, by tenant and key; None is all of them."""
        asked = ((ledger.c.tenant, tenant), (ledger.c.key_id, key_id))
        total = (
            select(
                ledger.c.tenant,
                ledger.c.key_id,
                func.count().label("requests"),
                func.count().filter(ledger.c.outcome != "ok").label("failed"),
                *(
                    func.coalesce(func.sum(ledger.c[name]), 0).label(name)
                    for name in ("images", "megapixel_steps", "gpu_seconds", "cold_starts", "cache_hits")
                ),
            )
            .where(ledger.c.at >= since, ledger.c.at < until, ledger.c.action.not_like("key.%"))
            .where(*(column == value for column, value in asked if value is not None))
            .group_by(ledger.c.tenant, ledger.c.key_id)
            .order_by(ledger.c.tenant, ledger.c.key_id)
        )
        async with self._database.read() as connection:
            rows = await connection.execute(total)
            return [Usage(**row) for row in rows.mappings()]

    async def gpu_seconds(self, key_id: str, since: float) -> float:
        """GPU seconds that a key has spent since then."""
        total = select(func.sum(ledger.c.gpu_seconds)).where(ledger.c.key_id == key_id, ledger.c.at >= since)
        async with self._database.read() as connection:
            return (await connection.execute(total)).scalar_one() or 0.0

    async def tail(self, *, limit: int, since: float = 0.0, before: int | None = None) -> list[Entry]:
        """The latest lines from `since` on, newest first; `before` is the number of the last that the caller has."""
        latest = select(ledger).where(ledger.c.at >= since).order_by(ledger.c.id.desc()).limit(limit)
        if before is not None:
            latest = latest.where(ledger.c.id < before)
        async with self._database.read() as connection:
            return [_entry(row) for row in await connection.execute(latest)]


def _row(line: Line) -> dict[str, Any]:
    return msgspec.structs.asdict(line) | {"facts": msgspec.json.encode(line.facts).decode()}


def _entry(row: Row[Any]) -> Entry:
    values = row._asdict()
    number, facts = values.pop("id"), msgspec.json.decode(values.pop("facts"))
    return Entry(number=number, **values, facts=facts)
