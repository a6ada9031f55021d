"""Webhooks that are to be delivered: written down in the transaction that ends a job, so that none is forgotten.

A delivery is claimed by a lease. Whoever dies with it leaves it to the next one, so a webhook arrives at least once,
with the same id and the same body each time.
"""

import uuid
from collections.abc import Callable, Sequence

import msgspec
from sqlalchemy import insert as insert_into
from sqlalchemy import or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from predictor.core.jobs import Job
from predictor.edge.stores.database import Database
from predictor.edge.stores.schema import deliveries, jobs


class Delivery(msgspec.Struct, frozen=True, kw_only=True):
    """A webhook on its way. Times are seconds since the epoch."""

    id: str
    job_id: str
    tenant: str  # of the job; its secret signs the webhook
    url: str
    body: bytes  # JSON
    created: float
    attempts: int  # this one included


async def insert(connection: AsyncConnection, ended: Sequence[Job], announce: Callable[[Job], bytes]) -> None:
    """A delivery for each of the ended jobs that asked for one, within the caller's transaction."""
    rows = [
        {
            "id": f"msg_{uuid.uuid4().hex}",
            "job_id": job.id,
            "url": job.webhook,
            "body": announce(job).decode(),
            "created": job.finished,
            "attempts": 0,
            "next_at": job.finished,
            "state": "pending",
        }
        for job in ended
        if job.webhook is not None
    ]
    if rows:
        await connection.execute(insert_into(deliveries), rows)


class Outbox:
    """The deliveries that are still to be made. Every method raises StoreUnavailable when the database is away."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def claim(self, owner: str, until: float, now: float, limit: int) -> list[Delivery]:
        """At most `limit` deliveries whose time has come, the longest due first; the owner's alone before `until`."""
        due = (
            select(deliveries, jobs.c.tenant)
            .join(jobs, jobs.c.id == deliveries.c.job_id)
            .where(
                deliveries.c.state == "pending",
                deliveries.c.next_at <= now,
                or_(deliveries.c.lease_until.is_(None), deliveries.c.lease_until <= now),
            )
            .order_by(deliveries.c.next_at, deliveries.c.id)
            .limit(limit)
            .with_for_update(of=deliveries, skip_locked=True)
        )
        async with self._database.write() as connection:
            rows = (await connection.execute(due)).all()
            if rows:
                await connection.execute(
                    update(deliveries)
                    .where(deliveries.c.id.in_([row.id for row in rows]))
                    .values(owner=owner, lease_until=until, attempts=deliveries.c.attempts + 1)
                )
        return [
            Delivery(
                id=row.id,
                job_id=row.job_id,
                tenant=row.tenant,
                url=row.url,
                body=row.body.encode(),
                created=row.created,
                attempts=row.attempts + 1,
            )
            for row in rows
        ]

    async def delivered(self, id: str) -> None:
        """It has arrived: never to be sent again."""
        await self._settle(id, state="delivered", error=None)

    async def retry(self, id: str, next_at: float, error: str) -> None:
        """It has not arrived, because of `error`; try again at `next_at`."""
        await self._settle(id, state="pending", error=error, next_at=next_at)

    async def dead(self, id: str, error: str) -> None:
        """It will not arrive, because of `error`: never to be sent again."""
        await self._settle(id, state="dead", error=error)

    async def _settle(self, id: str, **values: object) -> None:
        # One that is settled stays so: a slow try must not call back what another edge has delivered.
        pending = update(deliveries).where(deliveries.c.id == id, deliveries.c.state == "pending")
        async with self._database.write() as connection:
            await connection.execute(pending.values(owner=None, lease_until=None, **values))
