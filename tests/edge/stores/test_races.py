"""Several edges at once, each with connections of its own, on SQLite and on PostgreSQL."""

import asyncio
from collections import Counter

import pytest

from predictor.core.problems import Cancelled, QuotaExceeded
from tests.edge.stores.given import a_result, admitted, an_admission, announced, booked, edges

EDGES = 4
GONE = Cancelled("taken back").record()


@pytest.fixture
async def several(database_url):
    async with edges(database_url, EDGES) as several:
        yield several


async def at_once(several, count, make):
    """`make(edge)` for as many times, spread over the edges; results and exceptions in order."""
    calls = [make(several[number % EDGES]) for number in range(count)]
    return await asyncio.gather(*calls, return_exceptions=True)


async def test_identical_requests_of_all_edges_share_one_generation(several):
    jobs = await at_once(several, 40, lambda edge: admitted(edge, join="k"))
    assert len({job.generation.id for job in jobs}) == 1
    assert Counter(job.joined for job in jobs) == {False: 1, True: 39}
    assert await several[0].waiting() == (1, pytest.approx(0.1))


async def test_one_idempotency_key_makes_one_job(several):
    made = await at_once(several, 40, lambda edge: edge.admit(an_admission(idempotency_key="once"), 100.0, 1000))
    assert len({one.job.id for one in made}) == 1
    assert Counter(one.fresh for one in made) == {True: 1, False: 39}


async def test_one_idempotency_key_under_a_limit_of_one_makes_one_job(several):
    def again(edge):
        return edge.admit(an_admission(idempotency_key="once", concurrent_jobs=1), 100.0, 1000)

    assert len({one.job.id for one in await at_once(several, 20, again)}) == 1


async def test_a_key_gets_exactly_what_it_may_have(several):
    made = await at_once(several, 40, lambda edge: admitted(edge, concurrent_jobs=3))
    refused = [one for one in made if isinstance(one, QuotaExceeded)]
    assert (len(refused), len(made) - len(refused)) == (37, 3)
    page, _ = await several[0].page(tenant=None, key_id="key_1", state="active", limit=100, after=None)
    assert len(page) == 3


async def test_no_generation_is_claimed_by_two(several):
    jobs = [await admitted(several[0], request={"seed": seed}) for seed in range(40)]
    lists = await at_once(several, 16, lambda edge: edge.claim(f"{id(edge)}", 130.0, 4, 100.0))
    lists += await at_once(several, 16, lambda edge: edge.claim(f"{id(edge)}", 130.0, 4, 100.0))
    claimed = [generation.id for one in lists for generation in one]
    assert sorted(claimed) == sorted(job.generation.id for job in jobs)


async def test_an_abandoned_job_is_cancelled_by_one_edge(several):
    made = [await admitted(several[0], holder="dead", held_until=130.0) for _ in range(10)]
    lists = await at_once(several, EDGES, lambda edge: edge.abandoned(130.0))
    assert sorted(job.id for one in lists for job in one) == sorted(job.id for job in made)
    assert len(await booked(several[0])) == 10


async def test_whatever_wins_every_job_has_one_outcome_one_line_and_one_webhook(several):
    """Joining, cancelling, abandoning and finishing one generation at the same moment, many times over."""
    first = several[0]
    everything = []
    for round in range(12):
        key = f"k{round}"
        sync = {"holder": "dead", "held_until": 110.0}
        jobs = [await admitted(first, join=key, webhook="https://a.example", **sync) for _ in range(2)]
        jobs += [await admitted(first, join=key, webhook="https://a.example") for _ in range(2)]
        (generation,) = await first.claim("edge", 130.0, 10, 100.0)
        result = a_result(generation)
        calls = [several[n % EDGES].cancel(jobs[n].id, None, 111.0, GONE) for n in range(3 + round % 2)]
        calls += [edge.finish(generation, "edge", "done", 111.0, result=result) for edge in several[:2]]
        calls += [edge.abandoned(111.0) for edge in several[2:]]
        calls += [admitted(edge, join=key, webhook="https://a.example") for edge in several[1:3]]
        calls += [edge.renew("edge", 140.0, [generation.id]) for edge in several[:2]]
        calls += [edge.keep("dead", 112.0, [job.id for job in jobs[:2]]) for edge in several[2:]]
        order = sorted(range(len(calls)), key=lambda n: (n * 7 + round) % len(calls))
        outcomes = await asyncio.gather(*(calls[n] for n in order))
        everything += jobs + [one for one in outcomes if hasattr(one, "request_id")]
        for left in await first.claim("edge", 200.0, 100, 199.0):
            await first.finish(left, "edge", "done", 199.5, result=a_result(left))
    now = {job.id: await first.job(job.id, None) for job in everything}
    assert {job.state for job in now.values()} <= {"done", "cancelled"}
    assert all(job.state != "done" or job.generation.state == "done" for job in now.values())
    lines, hooks = await booked(first), await announced(first)
    assert Counter(line.job_id for line in lines) == Counter(now.keys())
    assert Counter(hook.job_id for hook in hooks) == Counter(now.keys())
    assert {line.job_id: line.outcome for line in lines} == {
        id: "ok" if job.state == "done" else "cancelled" for id, job in now.items()
    }
    made = {job.generation.id for job in now.values() if job.generation.state == "done" and job.state == "done"}
    assert sum(line.gpu_seconds for line in lines) == pytest.approx(0.5 * len(made)), "the books add up"
