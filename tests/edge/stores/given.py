"""Requests, jobs and results for the tests of the stores, and what they left in the database."""

import itertools
from contextlib import asynccontextmanager
from typing import Any

import msgspec
from sqlalchemy import select

from predictor.core.account import Limits
from predictor.core.fingerprint import fingerprint
from predictor.core.jobs import Generation, Job, Result, StoredImage
from predictor.core.request import GenerationRequest
from predictor.edge.stores.database import Database
from predictor.edge.stores.jobs import Admission, Jobs
from predictor.edge.stores.schema import deliveries, ledger

REVISION = "r1"
_numbers = itertools.count(1)


def a_request(**changes: Any) -> GenerationRequest:
    plain = GenerationRequest(
        prompt="a red circle",
        negative_prompt="",
        seed=7,
        steps=10,
        guidance_scale=5.0,
        height=100,
        width=100,
        sampler="ddim",
        num_images=1,
        truncate_prompt=False,
    )
    return msgspec.structs.replace(plain, **changes)


def a_generation(*, now: float = 100.0, tenant: str = "acme", **request: Any) -> Generation:
    asked = a_request(**request)
    return Generation(
        id=f"gen_{next(_numbers)}",
        tenant=tenant,
        request=asked,
        revision=REVISION,
        fingerprint=fingerprint(asked, REVISION),
        cacheable=True,
        created=now,
        deadline=now + 600,
    )


def an_admission(
    *,
    now: float = 100.0,
    tenant: str = "acme",
    join: str | None = None,
    request: dict[str, Any] | None = None,
    cached: Generation | None = None,
    concurrent_jobs: int = 0,
    holder: str | None = None,
    held_until: float | None = None,
    prompt: str | None = "hashed",
    **job: Any,
) -> Admission:
    """What the service hands over; `join` names the generation that may be shared, further keywords are the job's."""
    number = next(_numbers)
    fields: dict[str, Any] = {"kind": "job" if holder is None else "sync", "key_id": "key_1", "body_hash": "b"}
    fields |= {"request_id": f"request-{number}", **job}
    generation = a_generation(now=now, tenant=tenant, **(request or {}))
    return Admission(
        job=Job(id=f"job_{number}", tenant=tenant, created=now, generation=generation, **fields),
        limits=Limits(concurrent_jobs=concurrent_jobs),
        join_key=join,
        cached=cached,
        holder=holder,
        held_until=held_until,
        prompt=prompt,
    )


def a_result(generation: Generation, **changes: Any) -> Result:
    seeds = generation.request.seeds
    images = tuple(StoredImage(f"{generation.id}-{seed}.png", seed, 1000) for seed in seeds)
    plain = Result(
        images=images,
        revision=REVISION,
        prompt_tokens=5,
        negative_prompt_tokens=2,
        gpu_seconds=0.5,
        timing={"denoise": 0.4, "decode": 0.1},
        cold_start=False,
    )
    return msgspec.structs.replace(plain, **changes)


def announce(job: Job) -> bytes:
    return msgspec.json.encode({"id": job.id, "state": job.state, "at": job.finished})


@asynccontextmanager
async def edges(url: str, count: int = 1):
    """As many edges on one database, with connections of their own."""
    databases = [await Database.open(url) for _ in range(count)]
    try:
        yield [Jobs(database, announce) for database in databases]
    finally:
        for database in databases:
            await database.close()


async def admitted(jobs: Jobs, now: float = 100.0, max_waiting: int = 1000, **admission: Any) -> Job:
    return (await jobs.admit(an_admission(now=now, **admission), now, max_waiting)).job


async def booked(jobs: Jobs) -> list[Any]:
    """The lines of the ledger, in order."""
    return await rows(jobs, select(ledger).order_by(ledger.c.id))


async def announced(jobs: Jobs) -> list[Any]:
    """The webhooks that are to be sent, in the order of their ids' jobs."""
    return await rows(jobs, select(deliveries).order_by(deliveries.c.job_id))


async def rows(jobs: Jobs, statement: Any) -> list[Any]:
    async with jobs._database.read() as connection:
        return list(await connection.execute(statement))
