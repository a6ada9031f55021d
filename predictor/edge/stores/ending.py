"""The end of jobs, within the transaction that decides it: their rows, the books, and the webhooks to send.

Whoever ends jobs holds the lock on the row of their generation, so a job ends once, and its line in the ledger and its
webhook are written once.
"""

from collections.abc import Callable, Sequence

import msgspec
from sqlalchemy import bindparam, update
from sqlalchemy.ext.asyncio import AsyncConnection

from predictor.core.account import megapixel_steps
from predictor.core.jobs import Generation, Job, withheld
from predictor.core.problems import ProblemRecord
from predictor.edge.stores import ledger, outbox
from predictor.edge.stores.ledger import Line
from predictor.edge.stores.queries import Booking, count, jobs_where, lock_generation_of, one
from predictor.edge.stores.rows import job_of, text
from predictor.edge.stores.schema import generations, jobs


def concluded(job: Job, generation: Generation, now: float) -> Job:
    """The job as the end of its generation leaves it; moderation may keep pictures from it that others may have."""
    state, problem = generation.state, generation.problem
    if generation.result is not None and (problem := withheld(job, generation.result)):
        state = "failed"
    return msgspec.structs.replace(job, state=state, finished=now, problem=problem, generation=generation)


def line(job: Job, prompt: str | None) -> Line:
    """What the books say of a job that has ended: the GPU's work, unless that is another job's or was never done."""
    assert job.finished is not None
    result = job.generation.result
    outcome = "ok" if job.state == "done" else "cancelled"
    if job.state == "failed" and job.problem is not None:
        outcome = job.problem.code
    booked = Line(
        at=job.finished,
        tenant=job.tenant,
        key_id=job.key_id,
        request_id=job.request_id,
        job_id=job.id,
        action="cached" if job.cached else "joined" if job.joined else "generate",
        outcome=outcome,
        prompt=prompt,
        facts={"generation": job.generation.id},
    )
    if result is None:
        return booked
    if job.cached or job.joined:
        return msgspec.structs.replace(booked, cache_hits=1)
    return msgspec.structs.replace(
        booked,
        images=len(result.images),
        megapixel_steps=megapixel_steps(job.generation.request),
        gpu_seconds=result.gpu_seconds,
        cold_starts=int(result.waited > 0),  # whoever only came into it has not caused it
    )


async def conclude(
    connection: AsyncConnection, generation: Generation, now: float, announce: Callable[[Job], bytes]
) -> list[Job]:
    """End the unfinished jobs of a generation that has just ended; the first of them carries the cost."""
    active = jobs_where(jobs.c.generation_id == generation.id, jobs.c.state == "active")
    rows = await connection.execute(active.order_by(jobs.c.joined, jobs.c.created, jobs.c.id))
    ended: list[Booking] = []
    for row in rows.mappings():
        job = concluded(job_of(row), generation, now)
        if not ended:
            # Whoever began it may have cancelled: then an heir carries the cost, or the books would not add up.
            job = msgspec.structs.replace(job, joined=False)
        ended.append((job, row[jobs.c.prompt]))
    await _end(connection, ended, announce)
    return [job for job, _ in ended]


async def cancel(
    connection: AsyncConnection,
    id: str,
    tenant: str | None,
    now: float,
    problem: ProblemRecord,
    announce: Callable[[Job], bytes],
) -> tuple[Job, bool]:
    """See `Jobs.cancel`."""
    await lock_generation_of(connection, id)
    job, prompt = await one(connection, id, tenant)
    if job.state != "active":
        return job, False
    generation = job.generation
    alone = await count(connection, jobs.c.generation_id == generation.id, jobs.c.state == "active") == 1
    if alone:
        generation = msgspec.structs.replace(generation, state="cancelled", finished=now, problem=problem)
        values = {"state": "cancelled", "finished": now, "problem": text(problem)}
        nobodys = {"active_key": None, "owner": None, "lease_until": None}
        await connection.execute(
            update(generations).where(generations.c.id == generation.id).values({**values, **nobodys})
        )
    job = msgspec.structs.replace(job, state="cancelled", finished=now, problem=problem, generation=generation)
    await _end(connection, [(job, prompt)], announce)
    return job, alone


async def book(connection: AsyncConnection, ended: Sequence[Booking], announce: Callable[[Job], bytes]) -> None:
    """The line in the ledger of each of these jobs, and the webhooks of those that have one."""
    await ledger.insert(connection, [line(job, prompt) for job, prompt in ended])
    await outbox.insert(connection, [job for job, _ in ended], announce)


async def _end(connection: AsyncConnection, ended: Sequence[Booking], announce: Callable[[Job], bytes]) -> None:
    """Write down that these jobs, whose rows were active until now, have ended."""
    if not ended:
        return
    row = update(jobs).where(jobs.c.id == bindparam("of"))
    changes = row.values({name: bindparam(f"new_{name}") for name in ("state", "finished", "joined", "problem")})
    await connection.execute(
        changes.values(holder=None, held_until=None),
        [
            {
                "of": job.id,
                "new_state": job.state,
                "new_finished": job.finished,
                "new_joined": job.joined,
                "new_problem": text(job.problem),
            }
            for job, _ in ended
        ],
    )
    await book(connection, ended, announce)
