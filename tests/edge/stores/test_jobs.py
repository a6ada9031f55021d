"""Jobs from their admission to their end, on SQLite and on PostgreSQL."""

import msgspec
import pytest

from predictor.core.jobs import Verdict
from predictor.core.problems import (
    Cancelled,
    Conflict,
    InternalError,
    InvalidField,
    NotFound,
    QueueFull,
    QuotaExceeded,
)
from predictor.core.request import ImageEncoding
from predictor.edge.stores.jobs import Jobs
from tests.edge.stores.given import a_generation, a_result, admitted, an_admission, announced, booked, edges

GONE = Cancelled("taken back").record()


@pytest.fixture
async def jobs(database_url):
    async with edges(database_url) as (jobs,):
        yield jobs


async def run(jobs: Jobs, now: float = 110.0, **result):
    """Claim everything and end it well; returns the jobs that ended."""
    ended = []
    for generation in await jobs.claim("edge", now + 30, 1000, now):
        ended += await jobs.finish(generation, "edge", "done", now, result=a_result(generation, **result)) or []
    return ended


async def test_a_job_comes_back_as_it_was_admitted(jobs):
    admission = an_admission(
        request={"prompt": "ein rotes \0 Quadrat 🟥", "seed": 2**53 - 2000, "guidance_scale": 7.3},
        encoding=ImageEncoding("jpeg", 55),
        replay_of="job_0",
        idempotency_key="once",
        webhook="https://example.org/hook",
        end_user="u1",
        verdict=Verdict("low", 0.75),
    )
    made = await jobs.admit(admission, 100.0, 10)
    assert made.fresh
    assert made.job == admission.job
    assert await jobs.job(made.job.id, "acme") == admission.job


@pytest.mark.parametrize("id", ["job_of_nobody", "job_\0", ""])
async def test_a_job_that_is_not_there_is_not_found(jobs, id):
    with pytest.raises(NotFound, match="job: got"):
        await jobs.job(id, None)


async def test_a_tenant_does_not_find_the_job_of_another(jobs):
    job = await admitted(jobs)
    with pytest.raises(NotFound):
        await jobs.job(job.id, "rival")
    with pytest.raises(NotFound):
        await jobs.cancel(job.id, "rival", 101.0, GONE)
    assert (await jobs.job(job.id, None)).state == "active"


async def test_identical_requests_in_flight_share_one_generation_and_the_first_pays(jobs):
    first = await admitted(jobs, join="k", webhook="https://a.example")
    second = await admitted(jobs, now=101.0, join="k", key_id="key_2", webhook="https://b.example")
    other = await admitted(jobs, now=102.0, request={"seed": 8})
    assert second.generation.id == first.generation.id != other.generation.id
    assert (first.joined, second.joined) == (False, True)
    ended = await run(jobs, cold_start=True, waited=3.0)
    assert {job.id for job in ended} == {first.id, second.id, other.id}
    shown = await jobs.job(second.id, "acme")
    assert (shown.state, shown.finished, shown.generation.state) == ("done", 110.0, "done")
    assert shown in ended
    lines = {line.job_id: line for line in await booked(jobs)}
    assert (lines[first.id].action, lines[second.id].action) == ("generate", "joined")
    assert [
        (line.images, line.megapixel_steps, line.gpu_seconds, line.cold_starts, line.cache_hits)
        for line in (lines[first.id], lines[second.id])
    ] == [(1, 0.1, 0.5, 1, 0), (0, 0.0, 0.0, 0, 1)]
    assert {line.outcome for line in lines.values()} == {"ok"}
    assert lines[second.id].prompt == "hashed"
    assert {row.url for row in await announced(jobs)} == {"https://a.example", "https://b.example"}


async def test_a_cold_start_is_booked_to_whoever_caused_it_and_not_to_those_that_came_into_it(jobs):
    for caused in (True, False):
        await admitted(jobs)
        await run(jobs, cold_start=True, waited=3.0 if caused else 0.0)
    assert [line.cold_starts for line in await booked(jobs)] == [1, 0]


async def test_what_has_ended_or_must_not_be_shared_is_not_joined(jobs):
    alone = await admitted(jobs, join=None)
    assert not (await admitted(jobs, join="k")).joined
    await run(jobs)
    after = await admitted(jobs, join="k")
    assert not after.joined
    assert after.generation.id != alone.generation.id


async def test_a_newcomer_gives_the_generation_it_joins_its_own_time(jobs):
    await admitted(jobs, join="k")
    await admitted(jobs, now=500.0, join="k")
    (generation,) = await jobs.claim("edge", 530.0, 10, 500.0)
    assert generation.deadline == 1100.0


async def test_a_cached_result_ends_the_job_at_once(jobs):
    await admitted(jobs)
    (made,) = await run(jobs)
    job = await admitted(jobs, now=200.0, cached=made.generation, webhook="https://a.example")
    assert (job.state, job.cached, job.finished) == ("done", True, 200.0)
    assert job.generation == made.generation
    assert await jobs.job(job.id, "acme") == job
    line = (await booked(jobs))[-1]
    assert (line.job_id, line.action, line.outcome, line.cache_hits) == (job.id, "cached", "ok", 1)
    assert (line.images, line.megapixel_steps, line.gpu_seconds, line.cold_starts) == (0, 0.0, 0.0, 0)
    (hook,) = await announced(jobs)
    assert msgspec.json.decode(hook.body) == {"id": job.id, "state": "done", "at": 200.0}
    assert await jobs.claim("edge", 300.0, 10, 200.0) == []


async def test_a_result_that_only_the_cache_knows_is_made_again(jobs):
    job = await admitted(jobs, cached=a_generation())
    assert (job.state, job.cached) == ("active", False)
    assert [ended.id for ended in await run(jobs)] == [job.id]


async def test_moderation_keeps_pictures_from_one_job_and_not_from_another(jobs):
    strict = await admitted(jobs, join="k", verdict=Verdict("default", 0.5))
    lenient = await admitted(jobs, join="k", verdict=Verdict("low", 0.75))
    ended = {job.id: job for job in await run(jobs, scores=(0.6,))}
    assert ended[strict.id].state == "failed"
    assert ended[strict.id].problem.code == "moderation_blocked"
    assert ended[lenient.id].state == "done"
    assert ended[lenient.id].generation.state == "done"
    cached = await admitted(jobs, cached=ended[lenient.id].generation, verdict=Verdict("default", 0.5))
    assert (cached.state, cached.cached) == ("failed", True)
    lines = await booked(jobs)
    assert [line.outcome for line in lines] == ["moderation_blocked", "ok", "moderation_blocked"]
    assert [line.gpu_seconds for line in lines] == [0.5, 0.0, 0.0], "the GPU has worked all the same"


async def test_a_failed_generation_fails_its_jobs_with_its_problem(jobs):
    first, second = await admitted(jobs, join="k"), await admitted(jobs, join="k")
    (generation,) = await jobs.claim("edge", 130.0, 10, 100.0)
    problem = InternalError("a bug").record()
    ended = await jobs.finish(generation, "edge", "failed", 110.0, problem=problem)
    assert {job.id for job in ended} == {first.id, second.id}
    job = await jobs.job(second.id, "acme")
    assert (job.state, job.problem, job.generation.state) == ("failed", problem, "failed")
    lines = await booked(jobs)
    assert [line.outcome for line in lines] == ["internal", "internal"]
    assert sum(line.images + line.gpu_seconds + line.cache_hits for line in lines) == 0


async def test_an_idempotency_key_leads_to_the_job_that_has_it(jobs):
    first = await admitted(jobs, idempotency_key="once")
    again = await jobs.admit(an_admission(idempotency_key="once"), 101.0, 10)
    assert (again.job.id, again.fresh) == (first.id, False)
    await run(jobs)
    late = await jobs.admit(an_admission(idempotency_key="once"), 300.0, 10)
    assert (late.job.id, late.job.state, late.fresh) == (first.id, "done", False)
    assert (await jobs.admit(an_admission(idempotency_key="once", key_id="key_2"), 101.0, 10)).fresh
    with pytest.raises(Conflict, match=r"Idempotency-Key: 'once' .* another body") as refused:
        await jobs.admit(an_admission(idempotency_key="once", body_hash="c"), 101.0, 10)
    assert refused.value.field == "Idempotency-Key"


async def test_a_key_has_only_so_many_unfinished_jobs(jobs):
    for _ in range(2):
        job = await admitted(jobs, concurrent_jobs=2, idempotency_key=None)
    with pytest.raises(QuotaExceeded, match=r"concurrent_jobs: .* 2 unfinished jobs; allowed: 2") as refused:
        await admitted(jobs, concurrent_jobs=2)
    assert refused.value.retry_after is not None
    await admitted(jobs, concurrent_jobs=2, key_id="key_2")
    await jobs.cancel(job.id, None, 101.0, GONE)
    await admitted(jobs, concurrent_jobs=2)


async def test_no_more_than_so_many_jobs_wait_but_cached_ones_and_retries_pass(jobs):
    await admitted(jobs, idempotency_key="once")
    (done,) = await run(jobs)
    await admitted(jobs, max_waiting=1)
    with pytest.raises(QueueFull):
        await admitted(jobs, max_waiting=1, key_id="key_2")
    assert (await admitted(jobs, max_waiting=1, cached=done.generation)).state == "done"
    assert (await admitted(jobs, max_waiting=1, idempotency_key="once")).id == done.id


async def test_a_generation_goes_on_until_its_last_job_is_cancelled(jobs):
    first = await admitted(jobs, join="k", webhook="https://a.example")
    second = await admitted(jobs, join="k")
    (generation,) = await jobs.claim("edge", 130.0, 10, 100.0)
    job, alone = await jobs.cancel(first.id, "acme", 101.0, GONE)
    assert (job.state, job.problem, job.finished, alone) == ("cancelled", GONE, 101.0, False)
    assert job.generation.state == "running"
    assert await jobs.renew("edge", 140.0, [generation.id]) == {generation.id}
    job, alone = await jobs.cancel(second.id, None, 102.0, GONE)
    assert (alone, job.generation.state) == (True, "cancelled")
    assert await jobs.job(second.id, None) == job
    assert await jobs.renew("edge", 150.0, [generation.id]) == set(), "its runner learns it here"
    assert await jobs.finish(generation, "edge", "done", 103.0, result=a_result(generation)) is None
    assert not (await admitted(jobs, join="k")).joined
    assert [line.outcome for line in await booked(jobs)] == ["cancelled", "cancelled"]
    assert [msgspec.json.decode(hook.body)["state"] for hook in await announced(jobs)] == ["cancelled"]


async def test_what_has_ended_cannot_be_cancelled(jobs):
    await admitted(jobs)
    (job,) = await run(jobs)
    assert await jobs.cancel(job.id, "acme", 120.0, GONE) == (job, False)
    assert len(await booked(jobs)) == 1


async def test_an_heir_carries_the_cost_of_what_a_cancelled_job_began(jobs):
    first, second, third = [await admitted(jobs, now=100.0 + n, join="k") for n in range(3)]
    await jobs.cancel(first.id, None, 105.0, GONE)
    ended = await run(jobs)
    assert [(job.id, job.joined) for job in ended] == [(second.id, False), (third.id, True)]
    assert not (await jobs.job(second.id, None)).joined
    lines = await booked(jobs)
    assert [(line.outcome, line.gpu_seconds) for line in lines] == [("cancelled", 0.0), ("ok", 0.5), ("ok", 0.0)]


async def test_a_page_follows_the_one_before(jobs):
    # Two at a time were created at the same moment.
    made = [await admitted(jobs, now=100.0 + n // 2, key_id=f"key_{n % 2}") for n in range(7)]
    await admitted(jobs, tenant="rival")
    everything = sorted(made, key=lambda job: (job.created, job.id), reverse=True)
    seen, after = [], None
    while True:
        page, after = await jobs.page(tenant="acme", key_id=None, state=None, limit=3, after=after)
        seen.append(page)
        if after is None:
            break
    assert [len(page) for page in seen] == [3, 3, 1]
    assert [job.id for page in seen for job in page] == [job.id for job in everything]
    await jobs.cancel(made[0].id, None, 120.0, GONE)

    async def ids(**wanted):
        given = {"tenant": None, "key_id": None, "state": None, "limit": 100, "after": None} | wanted
        return {job.id for job in (await jobs.page(**given))[0]}

    assert len(await ids()) == 8
    assert await ids(state="cancelled") == {made[0].id}
    assert await ids(tenant="acme", key_id="key_1", state="active") == {job.id for job in made[1::2]}
    with pytest.raises(InvalidField, match="after: got 'job_nowhere'"):
        await ids(after="job_nowhere")
    with pytest.raises(InvalidField):
        await ids(tenant="rival", after=made[1].id)


async def test_an_outcome_that_cannot_be_announced_is_not_half_written(database_url):
    async with edges(database_url) as (jobs,):
        job = await admitted(jobs, webhook="https://a.example")
        (generation,) = await jobs.claim("edge", 130.0, 10, 100.0)

        def broken(job):
            raise RuntimeError("no words")

        with pytest.raises(RuntimeError, match="no words"):
            await Jobs(jobs._database, broken).finish(generation, "edge", "done", 101.0, result=a_result(generation))
        assert (await jobs.job(job.id, None)).generation.state == "running"
        assert await booked(jobs) == await announced(jobs) == []
        assert len(await jobs.finish(generation, "edge", "done", 102.0, result=a_result(generation))) == 1
