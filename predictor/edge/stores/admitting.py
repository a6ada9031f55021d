"""A job is written down, in the caller's transaction: joined, answered at once by a cached result, or on its own."""

from collections.abc import Callable

import msgspec
from sqlalchemy import func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from predictor.core.account import Limits
from predictor.core.jobs import Generation, Job
from predictor.core.problems import Conflict, QueueFull, QuotaExceeded, shown
from predictor.edge.stores import queries
from predictor.edge.stores.ending import book, concluded
from predictor.edge.stores.rows import generation_of, generation_values, job_of, job_values
from predictor.edge.stores.schema import generations, jobs

SOON = 5.0  # seconds after which a client may find room


class Admission(msgspec.Struct, frozen=True, kw_only=True):
    """A job that a caller may have, with the generation it needs unless one in flight will do."""

    job: Job
    limits: Limits  # of its key
    join_key: str | None = None  # equal for requests that may share a generation; None: not to be shared
    cached: Generation | None = None  # one that has ended and answers it
    holder: str | None = None  # the edge with the connection of a synchronous request
    held_until: float | None = None  # when that connection counts as gone unless its edge says otherwise
    prompt: str | None = None  # as the ledger will have it


class Admitted(msgspec.Struct, frozen=True):
    """What became of an admission."""

    job: Job
    fresh: bool  # False: a job that an earlier request has left under the same idempotency key


async def admit(
    connection: AsyncConnection, a: Admission, now: float, max_waiting: int, announce: Callable[[Job], bytes]
) -> Admitted:
    """See `Jobs.admit`; raises IntegrityError where another transaction took a key since this one began."""
    if a.limits.concurrent_jobs and connection.dialect.name == "postgresql":
        # Two edges must not both give away the last place. SQLite has one writer at a time anyway.
        await connection.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(a.job.key_id, 0))))
    if (earlier := await _earlier(connection, a)) is not None:
        return Admitted(earlier, fresh=False)
    # A cache may still know the generations of a database that is no more.
    if a.cached is not None and (cached := await _done(connection, a.cached.id)) is not None:
        job = concluded(msgspec.structs.replace(a.job, cached=True), cached, now)
        await connection.execute(insert(jobs).values(job_values(job)))
        await book(connection, [(job, a.prompt)], announce)
        return Admitted(job, fresh=True)
    await _check_room(connection, a, max_waiting)
    shared = await _shared(connection, a)
    job = msgspec.structs.replace(a.job, joined=shared is not None, generation=shared or a.job.generation)
    if shared is None:
        await connection.execute(insert(generations).values(generation_values(job.generation, a.join_key)))
    held = {"holder": a.holder, "held_until": a.held_until, "prompt": a.prompt}
    await connection.execute(insert(jobs).values(job_values(job) | held))
    return Admitted(job, fresh=True)


async def _earlier(connection: AsyncConnection, a: Admission) -> Job | None:
    """The job that has the idempotency key already."""
    key = a.job.idempotency_key
    if key is None:
        return None
    same = queries.jobs_where(jobs.c.key_id == a.job.key_id, jobs.c.idempotency_key == key)
    row = (await connection.execute(same)).mappings().first()
    if row is None:
        return None
    job = job_of(row)
    if job.body_hash != a.job.body_hash:
        message = f"Idempotency-Key: {shown(key)} came with another body before; allowed: the same body, or a new key"
        raise Conflict(message, field="Idempotency-Key")
    if a.held_until is not None:
        await connection.execute(queries.holding(job.id, a.holder, a.held_until))
    return job


async def _done(connection: AsyncConnection, id: str) -> Generation | None:
    found = select(generations).where(generations.c.id == id, generations.c.state == "done")
    row = (await connection.execute(found)).mappings().first()
    return generation_of(row) if row else None


async def _shared(connection: AsyncConnection, a: Admission) -> Generation | None:
    """The generation in flight that the job may share; locked, so that it does not end before the job is there."""
    if a.join_key is None:
        return None
    in_flight = select(generations).where(generations.c.active_key == a.join_key).with_for_update()
    row = (await connection.execute(in_flight)).mappings().first()
    if row is None:
        return None
    shared = generation_of(row)
    # If it waits for long, or must be started again, the newcomer has its whole time as well.
    deadline = max(shared.deadline, a.job.generation.deadline)
    await connection.execute(update(generations).where(generations.c.id == shared.id).values(deadline=deadline))
    return msgspec.structs.replace(shared, deadline=deadline)


async def _check_room(connection: AsyncConnection, a: Admission, max_waiting: int) -> None:
    allowed = a.limits.concurrent_jobs
    if allowed:
        own = await queries.count(connection, jobs.c.key_id == a.job.key_id, jobs.c.state == "active")
        if own >= allowed:
            raise QuotaExceeded(
                f"concurrent_jobs: this key has {own} unfinished jobs; allowed: {allowed}", retry_after=SOON
            )
    if await queries.count(connection, jobs.c.state == "active") >= max_waiting:
        raise QueueFull(f"{max_waiting} jobs wait already, which is all that this edge lets wait", retry_after=SOON)
