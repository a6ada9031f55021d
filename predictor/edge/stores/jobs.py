"""Jobs and the generations that they share, in the database; `core/jobs.py` draws their states.

Each change is one transaction, and whoever changes a generation or ends one of its jobs first locks the generation's
row. A generation ends by a compare-and-set on its claim (id, attempt, owner), together with its jobs, their lines in
the ledger and their webhooks. So however edges die, every job has one outcome, is booked once and announced once.
"""

from collections.abc import Callable, Collection
from typing import Literal

import msgspec
import structlog
from sqlalchemy import and_, func, or_, select, tuple_, update
from sqlalchemy.exc import IntegrityError

from predictor.core.jobs import Generation, Job, JobState, Result
from predictor.core.problems import Cancelled, InvalidField, NotFound, ProblemRecord
from predictor.edge.stores.admitting import Admission, Admitted, admit
from predictor.edge.stores.database import Database
from predictor.edge.stores.ending import cancel, conclude
from predictor.edge.stores.queries import holding, jobs_where, lock_generation_of, one, yield_claim
from predictor.edge.stores.rows import generation_of, job_of, text
from predictor.edge.stores.schema import generations, jobs

__all__ = ["Admission", "Admitted", "Jobs"]

log = structlog.get_logger("sdzero.edge")
CHUNK = 1000  # ids of one statement; a database takes 32,766 parameters
RACES = 8  # how often another edge may be quicker with the same key before that is a bug


class Jobs:
    """The tables `jobs` and `generations`. Times are seconds since the epoch.

    Every method raises StoreUnavailable when the database is away; a change may have been made all the same.

    Args:
        announce: the body of the webhook of a job that has ended, as JSON.
    """

    def __init__(self, database: Database, announce: Callable[[Job], bytes]) -> None:
        self._database = database
        self._announce = announce

    async def admit(self, admission: Admission, now: float, max_waiting: int) -> Admitted:
        """Write a job down: joined to a generation in flight, ended at once by a cached one, or with its own.

        Args:
            admission: the job; its idempotency key may lead to an earlier one, which the caller then holds as well.
            now: when.
            max_waiting: unfinished jobs of all keys; edges that admit at the same moment may exceed it by a few.

        Raises:
            Conflict: the idempotency key belongs to another body.
            QuotaExceeded: the key has as many unfinished jobs as it may.
            QueueFull: there are `max_waiting` already.
        """
        for race in range(RACES):
            try:
                async with self._database.write() as connection:
                    return await admit(connection, admission, now, max_waiting, self._announce)
            except IntegrityError:
                # Another edge has taken the active key or the idempotency key since we looked: now it can be seen.
                if race == RACES - 1:
                    raise
        raise AssertionError("unreachable")

    async def job(self, id: str, tenant: str | None) -> Job:
        """The job; None for `tenant` looks among everybody's.

        Raises:
            NotFound: the tenant has no such job.
        """
        async with self._database.read() as connection:
            return (await one(connection, id, tenant))[0]

    async def retried(self, key_id: str, body_hash: str, since: float) -> Job | None:
        """The key's newest synchronous job with this body that is active or done and was created after `since`."""
        found = jobs_where(
            jobs.c.key_id == key_id,
            jobs.c.body_hash == body_hash,
            jobs.c.created > since,
            jobs.c.kind == "sync",
            jobs.c.state.in_(("active", "done")),
        )
        async with self._database.read() as connection:
            row = (await connection.execute(found.order_by(jobs.c.created.desc()).limit(1))).mappings().first()
        return job_of(row) if row else None

    async def page(
        self, *, tenant: str | None, key_id: str | None, state: JobState | None, limit: int, after: str | None
    ) -> tuple[list[Job], str | None]:
        """At most `limit` jobs, the newest first, that follow the job `after`; and what to pass for the next ones.

        Raises:
            InvalidField: `after` is no job of the tenant.
        """
        wanted = {jobs.c.tenant: tenant, jobs.c.key_id: key_id, jobs.c.state: state}
        conditions = [column == value for column, value in wanted.items() if value is not None]
        async with self._database.read() as connection:
            if after is not None:
                try:
                    (last, _) = await one(connection, after, tenant)
                except NotFound:
                    raise InvalidField.of("after", after, "the id of a job that was listed") from None
                conditions.append(tuple_(jobs.c.created, jobs.c.id) < tuple_(last.created, last.id))
            newest = jobs_where(*conditions).order_by(jobs.c.created.desc(), jobs.c.id.desc()).limit(limit + 1)
            found = [job_of(row) for row in (await connection.execute(newest)).mappings()]
        return found[:limit], found[limit - 1].id if len(found) > limit else None

    async def finished(self, scope: str | None, fingerprint: str, since: float) -> Generation | None:
        """The newest generation with these pixels that was done after `since`, of one tenant or (None) of all."""
        newest = (
            select(generations)
            .where(
                generations.c.fingerprint == fingerprint,
                generations.c.state == "done",
                generations.c.cacheable,
                generations.c.finished > since,
                *([] if scope is None else [generations.c.tenant == scope]),
            )
            .order_by(generations.c.finished.desc())
            .limit(1)
        )
        async with self._database.read() as connection:
            row = (await connection.execute(newest)).mappings().first()
        return generation_of(row) if row else None

    async def waiting(self) -> tuple[int, float]:
        """Images and megapixel-steps of all generations that wait or run."""
        total = select(
            func.coalesce(func.sum(generations.c.images), 0),
            func.coalesce(func.sum(generations.c.megapixel_steps), 0.0),
        ).where(generations.c.state.in_(("waiting", "running")))
        async with self._database.read() as connection:
            images, steps = (await connection.execute(total)).one()
        return int(images), float(steps)

    async def last_answer(self) -> float | None:
        """When the predictor was last known to be awake: the end of the latest generation that is done."""
        latest = select(func.max(generations.c.finished)).where(generations.c.state == "done")
        async with self._database.read() as connection:
            end: float | None = (await connection.execute(latest)).scalar_one()
        return end

    async def claim(self, owner: str, until: float, images: int, now: float) -> list[Generation]:
        """Generations for `owner` to run, the oldest first, of at most so many images in all.

        They wait, or the lease of whoever ran them has expired; until `until` they are nobody else's. The oldest that
        does not fit ends the list: smaller ones do not overtake it.
        """
        free = or_(
            generations.c.state == "waiting",
            and_(generations.c.state == "running", generations.c.lease_until <= now),
        )
        oldest = select(generations).where(free).order_by(generations.c.created, generations.c.id).limit(images)
        async with self._database.write() as connection:
            claimed: list[Generation] = []
            for row in (await connection.execute(oldest.with_for_update(skip_locked=True))).mappings():
                try:
                    waiting = generation_of(row)
                except msgspec.DecodeError:
                    # It must not keep the others from their turn.
                    log.exception("generation cannot be read", generation=row["id"])
                    continue
                images -= waiting.request.num_images
                if images < 0:
                    break
                attempt = waiting.attempt + 1
                claimed.append(msgspec.structs.replace(waiting, state="running", attempt=attempt, started=now))
            if claimed:
                ours = generations.c.id.in_([generation.id for generation in claimed])
                values = {"state": "running", "owner": owner, "lease_until": until, "started": now}
                await connection.execute(
                    update(generations).where(ours).values(values | {"attempt": generations.c.attempt + 1})
                )
        return claimed

    async def renew(self, owner: str, until: float, running: Collection[str]) -> set[str]:
        """Extend the owner's leases on the generations `running` to `until`.

        A generation that the owner has claimed without knowing it (the answer of the database was lost) is not among
        `running`: its lease runs out, and somebody claims it again.

        Returns:
            Ids of those among `running` that are still the owner's and still wanted.
        """
        leased = and_(
            generations.c.owner == owner, generations.c.state == "running", generations.c.id.in_(list(running))
        )
        async with self._database.write() as connection:
            kept = update(generations).where(leased).values(lease_until=until).returning(generations.c.id)
            return set((await connection.execute(kept)).scalars())

    async def keep(self, holder: str, until: float, held: Collection[str]) -> None:
        """Extend the edge's hold on the synchronous jobs `held`, as far as it is still its own, to `until`.

        A job that was admitted for a connection which had gone by then is not among `held`, and is soon abandoned.
        """
        ids = sorted(held)
        async with self._database.write() as connection:
            for start in range(0, len(ids), CHUNK):
                ours = (
                    select(jobs.c.id)
                    .where(jobs.c.id.in_(ids[start : start + CHUNK]), jobs.c.holder == holder, jobs.c.state == "active")
                    # One that is locked is about to end, or is held by its newest connection right now.
                    .with_for_update(skip_locked=True)
                )
                await connection.execute(update(jobs).where(jobs.c.id.in_(ours)).values(held_until=until))

    async def finish(
        self,
        generation: Generation,
        owner: str,
        state: Literal["done", "failed"],
        now: float,
        *,
        result: Result | None = None,
        problem: ProblemRecord | None = None,
    ) -> list[Job] | None:
        """End the generation that `owner` has claimed, with `result` or `problem`, and all its unfinished jobs.

        The first of the jobs carries the cost in the ledger. Where moderation keeps the pictures of a generation from
        a job, that job ends `failed`.

        Returns:
            The jobs that ended with it; None if the claim is no longer the owner's and nothing was changed.
        """
        ended = msgspec.structs.replace(generation, state=state, finished=now, result=result, problem=problem)
        values = {"state": state, "finished": now, "result": text(result), "problem": text(problem)}
        async with self._database.write() as connection:
            if not await yield_claim(connection, generation, owner, values | {"active_key": None}):
                return None
            return await conclude(connection, ended, now, self._announce)

    async def release(self, generation: Generation, owner: str) -> None:
        """Give a claimed generation back, to be run by whoever comes first; nothing happens if it is not `owner`'s.

        An edge that leaves in good order does not use up one of the generation's attempts.
        """
        async with self._database.write() as connection:
            await yield_claim(connection, generation, owner, {"state": "waiting", "attempt": generation.attempt - 1})

    async def cancel(self, id: str, tenant: str | None, now: float, problem: ProblemRecord) -> tuple[Job, bool]:
        """End the job with `problem` if it is active, and its generation too if no other job wants that.

        Returns:
            The job as it is now, and whether its generation was cancelled with it.

        Raises:
            NotFound: the tenant (None: nobody) has no such job.
        """
        async with self._database.write() as connection:
            return await cancel(connection, id, tenant, now, problem, self._announce)

    async def hold(self, id: str, holder: str, until: float) -> None:
        """The edge `holder` holds a synchronous job that is active; until `until`, if it says no more."""
        async with self._database.write() as connection:
            await connection.execute(holding(id, holder, until))

    async def abandoned(self, now: float) -> list[Job]:
        """Cancel the synchronous jobs that nobody holds any more; returns them.

        A generation that others still want goes on; `job.generation.state` tells.
        """
        lost = (jobs.c.state == "active", jobs.c.held_until <= now)
        problem = Cancelled("the client has gone").record()
        cancelled = []
        async with self._database.read() as connection:
            ids = (await connection.execute(select(jobs.c.id).where(*lost).order_by(jobs.c.held_until))).scalars().all()
        for id in ids:
            async with self._database.write() as connection:
                await lock_generation_of(connection, id)
                still = select(jobs.c.id).where(jobs.c.id == id, *lost).with_for_update()
                if (await connection.execute(still)).first() is not None:
                    job, _ = await cancel(connection, id, None, now, problem, self._announce)
                    cancelled.append(job)
        return cancelled
