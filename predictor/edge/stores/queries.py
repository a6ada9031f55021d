"""Statements of more than one file here."""

from collections.abc import Mapping

from sqlalchemy import ColumnElement, Select, Update, func, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from predictor.core.jobs import Generation, Job
from predictor.core.problems import NotFound, shown
from predictor.edge.stores.rows import job_of
from predictor.edge.stores.schema import generations, jobs

Booking = tuple[Job, str | None]  # a job, and its prompt as the ledger has it


def jobs_where(*conditions: ColumnElement[bool]) -> Select[*tuple[object, ...]]:
    """Jobs with their generations: rows for `job_of`."""
    return select(jobs, generations).join(generations, generations.c.id == jobs.c.generation_id).where(*conditions)


def holding(id: str, holder: str | None, until: float) -> Update:
    """A synchronous job that is active gets a new holder."""
    held = update(jobs).where(jobs.c.id == id, jobs.c.kind == "sync", jobs.c.state == "active")
    return held.values(holder=holder, held_until=until)


async def one(connection: AsyncConnection, id: str, tenant: str | None) -> Booking:
    """The tenant's job; NotFound if it is not the tenant's (None: anybody's)."""
    conditions = [jobs.c.id == id, *([] if tenant is None else [jobs.c.tenant == tenant])]
    row = None
    if "\0" not in id:  # PostgreSQL cannot even be asked
        row = (await connection.execute(jobs_where(*conditions))).mappings().first()
    if row is None:
        raise NotFound(f"job: got {shown(id)}; allowed: the id of a job of this tenant")
    return job_of(row), row[jobs.c.prompt]


async def count(connection: AsyncConnection, *conditions: ColumnElement[bool]) -> int:
    """How many jobs there are."""
    return (await connection.execute(select(func.count()).select_from(jobs).where(*conditions))).scalar_one()


async def lock_generation_of(connection: AsyncConnection, job_id: str) -> None:
    """Nobody else ends, joins or claims the job's generation before this transaction is over."""
    generation = select(jobs.c.generation_id).where(jobs.c.id == job_id).scalar_subquery()
    await connection.execute(select(generations.c.id).where(generations.c.id == generation).with_for_update())


async def yield_claim(
    connection: AsyncConnection, generation: Generation, owner: str, values: Mapping[str, object]
) -> bool:
    """Take a claimed generation from its owner into the state of `values`; False if the claim is not the owner's."""
    claimed = (
        generations.c.id == generation.id,
        generations.c.attempt == generation.attempt,
        generations.c.owner == owner,
        generations.c.state == "running",
    )
    nobodys = {"owner": None, "lease_until": None}
    return (await connection.execute(update(generations).where(*claimed).values({**values, **nobodys}))).rowcount == 1
