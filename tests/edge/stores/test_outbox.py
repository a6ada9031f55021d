"""Webhooks on their way, on SQLite and on PostgreSQL."""

import asyncio

import msgspec
import pytest

from predictor.core.problems import Cancelled
from predictor.edge.stores.outbox import Outbox
from tests.edge.stores.given import a_result, admitted, announced, edges

HOOK = "https://example.org/hook"
GONE = Cancelled("taken back").record()


@pytest.fixture
async def jobs(database_url):
    async with edges(database_url) as (jobs,):
        yield jobs


@pytest.fixture
def outbox(jobs):
    return Outbox(jobs._database)


async def ended(jobs, now=100.0, **admission):
    job = await admitted(jobs, webhook=HOOK, **admission)
    return (await jobs.cancel(job.id, None, now, GONE))[0]


async def test_only_an_ended_job_that_asked_for_it_is_announced(jobs, outbox):
    await admitted(jobs, webhook=HOOK)
    silent = await admitted(jobs)
    await jobs.cancel(silent.id, None, 100.0, GONE)
    assert await outbox.claim("edge", 200.0, 1e6, 10) == []
    job = await ended(jobs, 105.0, tenant="acme")
    (delivery,) = await outbox.claim("edge", 200.0, 105.0, 10)
    assert (delivery.job_id, delivery.tenant, delivery.url, delivery.created) == (job.id, "acme", HOOK, 105.0)
    assert delivery.id.startswith("msg_")
    assert msgspec.json.decode(delivery.body) == {"id": job.id, "state": "cancelled", "at": 105.0}
    assert delivery.attempts == 1


async def test_a_lease_keeps_others_away_until_it_expires(jobs, outbox):
    await ended(jobs)
    (first,) = await outbox.claim("dead", 130.0, 100.0, 10)
    assert await outbox.claim("edge", 160.0, 129.0, 10) == []
    (second,) = await outbox.claim("edge", 160.0, 130.0, 10)
    assert (second.id, second.body) == (first.id, first.body), "the receiver knows it by these"
    assert second.attempts == 2


async def test_what_has_arrived_or_died_is_never_sent_again(jobs, outbox):
    for _ in range(2):
        await ended(jobs)
    arrived, lost = await outbox.claim("edge", 130.0, 100.0, 10)
    await outbox.delivered(arrived.id)
    await outbox.dead(lost.id, "410 Gone")
    await outbox.retry(arrived.id, 101.0, "a slow try of another edge")
    await outbox.retry(lost.id, 101.0, "another")
    assert await outbox.claim("edge", 1e7, 1e6, 10) == []
    states = {row.id: (row.state, row.error) for row in await announced(jobs)}
    assert states == {arrived.id: ("delivered", None), lost.id: ("dead", "410 Gone")}


async def test_a_retry_waits_for_its_time(jobs, outbox):
    await ended(jobs)
    (delivery,) = await outbox.claim("edge", 130.0, 100.0, 10)
    await outbox.retry(delivery.id, 110.0, "503")
    assert await outbox.claim("edge", 130.0, 109.0, 10) == []
    (again,) = await outbox.claim("edge", 130.0, 110.0, 10)
    assert (again.id, again.attempts, again.created) == (delivery.id, 2, 100.0)


async def test_the_longest_due_come_first_and_no_more_than_asked_for(jobs, outbox):
    made = [await ended(jobs, now) for now in (103.0, 101.0, 102.0)]
    claimed = await outbox.claim("edge", 130.0, 110.0, 2)
    assert [delivery.job_id for delivery in claimed] == [made[1].id, made[2].id]
    assert await outbox.claim("edge", 130.0, 102.5, 2) == []
    assert [delivery.job_id for delivery in await outbox.claim("edge", 130.0, 110.0, 2)] == [made[0].id]


async def test_the_jobs_of_one_generation_have_a_webhook_each(jobs, outbox):
    made = {(await admitted(jobs, join="k", webhook=f"{HOOK}/{n}")).id: f"{HOOK}/{n}" for n in range(3)}
    (generation,) = await jobs.claim("edge", 130.0, 10, 100.0)
    await jobs.finish(generation, "edge", "done", 101.0, result=a_result(generation))
    assert {one.job_id: one.url for one in await outbox.claim("edge", 130.0, 101.0, 10)} == made


async def test_several_edges_never_claim_the_same(database_url):
    async with edges(database_url, 3) as several:
        made = [await ended(several[0]) for _ in range(30)]
        boxes = [Outbox(jobs._database) for jobs in several]
        lists = await asyncio.gather(*(box.claim("edge", 130.0, 100.0, 4) for box in boxes * 4))
        lists += await asyncio.gather(*(box.claim("edge", 130.0, 100.0, 4) for box in boxes))
        claimed = [delivery.job_id for one in lists for delivery in one]
        assert sorted(claimed) == sorted(job.id for job in made)
