"""Who runs a generation, and who holds a job: leases, on SQLite and on PostgreSQL."""

import pytest
from sqlalchemy import update

from predictor.core.problems import Cancelled
from predictor.edge.stores.schema import generations
from tests.edge.stores.given import a_result, admitted, booked, edges

GONE = Cancelled("taken back").record()


@pytest.fixture
async def jobs(database_url):
    async with edges(database_url) as (jobs,):
        yield jobs


async def test_the_oldest_generations_that_fit_are_claimed_and_none_is_overtaken(jobs):
    for number, images in enumerate((1, 2, 4, 1)):
        await admitted(jobs, now=100.0 + number, request={"num_images": images, "seed": number})
    first = await jobs.claim("edge", 140.0, 4, 110.0)
    assert [generation.request.num_images for generation in first] == [1, 2]
    assert [(generation.state, generation.attempt, generation.started) for generation in first] == [
        ("running", 1, 110.0)
    ] * 2
    assert await jobs.claim("other", 140.0, 3, 110.0) == []
    rest = await jobs.claim("other", 140.0, 5, 110.0)
    assert [generation.request.num_images for generation in rest] == [4, 1]
    assert await jobs.claim("other", 140.0, 100, 110.0) == []


async def test_a_lease_that_expires_lets_another_edge_run_it_and_only_that_one_may_end_it(jobs):
    job = await admitted(jobs)
    (late,) = await jobs.claim("dead", 130.0, 10, 100.0)
    assert await jobs.claim("edge", 160.0, 10, 129.0) == []
    (again,) = await jobs.claim("edge", 160.0, 10, 130.0)
    assert (again.id, again.attempt) == (late.id, 2)
    assert await jobs.renew("dead", 160.0, [late.id]) == set()
    assert await jobs.finish(again, "stranger", "failed", 131.0, problem=GONE) is None
    assert await jobs.finish(late, "dead", "done", 131.0, result=a_result(late, gpu_seconds=9.0)) is None
    await jobs.release(late, "dead")
    assert (await jobs.job(job.id, None)).generation == again
    assert [ended.id for ended in await jobs.finish(again, "edge", "done", 132.0, result=a_result(again))] == [job.id]
    assert await jobs.finish(again, "edge", "failed", 133.0, problem=GONE) is None
    assert [line.gpu_seconds for line in await booked(jobs)] == [0.5]


async def test_an_edge_that_claims_again_does_not_end_its_new_attempt_with_its_old_one(jobs):
    await admitted(jobs)
    (old,) = await jobs.claim("edge", 130.0, 10, 100.0)
    (new,) = await jobs.claim("edge", 160.0, 10, 130.0)
    assert await jobs.finish(old, "edge", "failed", 131.0, problem=GONE) is None
    assert await jobs.finish(new, "edge", "done", 131.0, result=a_result(new)) is not None


async def test_a_renewed_lease_holds_and_a_claim_that_nobody_knows_of_runs_out(jobs):
    await admitted(jobs, request={"seed": 1})
    await admitted(jobs, request={"seed": 2})
    known, unknown = await jobs.claim("edge", 130.0, 10, 100.0)
    assert await jobs.renew("edge", 160.0, [known.id, "gen_of_nobody"]) == {known.id}
    assert [generation.id for generation in await jobs.claim("other", 170.0, 10, 140.0)] == [unknown.id]
    assert [generation.id for generation in await jobs.claim("other", 190.0, 10, 160.0)] == [known.id]
    assert await jobs.renew("edge", 200.0, []) == set()


async def test_a_released_generation_is_there_for_the_next(jobs):
    job = await admitted(jobs)
    (generation,) = await jobs.claim("edge", 130.0, 10, 100.0)
    await jobs.release(generation, "edge")
    assert (await jobs.job(job.id, None)).generation.state == "waiting"
    assert await jobs.finish(generation, "edge", "done", 101.0, result=a_result(generation)) is None
    (again,) = await jobs.claim("other", 130.0, 10, 101.0)
    assert (again.id, again.attempt) == (generation.id, 1)  # to leave in good order is no attempt


async def test_a_synchronous_job_is_cancelled_when_nobody_holds_it(jobs):
    lost = await admitted(jobs, holder="dead", held_until=130.0)
    held = await admitted(jobs, holder="edge", held_until=130.0)
    patient = await admitted(jobs)
    await jobs.keep("edge", 160.0, [lost.id, held.id, patient.id, "job_of_nobody"])
    assert await jobs.abandoned(129.0) == []
    (gone,) = await jobs.abandoned(130.0)
    assert (gone.id, gone.state, gone.problem.code) == (lost.id, "cancelled", "cancelled")
    assert gone.generation.state == "cancelled"
    assert [line.outcome for line in await booked(jobs)] == ["cancelled"]
    assert await jobs.abandoned(130.0) == []
    assert [job.id for job in await jobs.abandoned(1e9)] == [held.id]
    assert (await jobs.job(patient.id, None)).state == "active"


async def test_more_jobs_can_be_held_than_a_statement_has_parameters(jobs):
    first = await admitted(jobs, holder="edge", held_until=130.0)
    last = await admitted(jobs, holder="edge", held_until=130.0)
    await jobs.keep("edge", 160.0, [f"job_{number:05}_of_nobody" for number in range(40_000)] + [first.id, last.id])
    assert await jobs.abandoned(159.0) == []


async def test_what_others_want_outlives_an_abandoned_job(jobs):
    await admitted(jobs, join="k", holder="dead", held_until=130.0)
    patient = await admitted(jobs, join="k")
    (gone,) = await jobs.abandoned(130.0)
    assert gone.generation.state == "waiting"
    assert [generation.id for generation in await jobs.claim("edge", 160.0, 1, 130.0)] == [patient.generation.id]


async def test_a_retry_takes_over_the_hold(jobs):
    job = await admitted(jobs, holder="edge", held_until=130.0, idempotency_key="once")
    await jobs.hold(job.id, "", 142.0)
    await jobs.keep("edge", 160.0, [job.id])
    assert await jobs.abandoned(141.0) == [], "the client has until then to come back"
    await jobs.hold(job.id, "other", 150.0)
    assert await jobs.abandoned(142.0) == []
    await admitted(jobs, holder="third", held_until=170.0, idempotency_key="once")
    assert await jobs.abandoned(169.0) == []
    assert [gone.id for gone in await jobs.abandoned(170.0)] == [job.id]


async def test_only_a_synchronous_job_can_be_held(jobs):
    job = await admitted(jobs)
    await jobs.hold(job.id, "edge", 110.0)
    assert await jobs.abandoned(1e9) == []


async def test_a_retry_finds_what_its_first_try_left(jobs):
    sync = {"holder": "edge", "held_until": 130.0}
    await admitted(jobs, now=100.0, **sync)
    newest = await admitted(jobs, now=101.0, **sync)
    await admitted(jobs, now=102.0, body_hash="other", **sync)
    await admitted(jobs, now=102.0, key_id="key_2", **sync)
    await admitted(jobs, now=102.0)
    assert (await jobs.retried("key_1", "b", 50.0)).id == newest.id
    assert await jobs.retried("key_1", "b", 101.0) is None
    await jobs.cancel(newest.id, None, 103.0, GONE)
    assert (await jobs.retried("key_1", "b", 50.0)).created == 100.0


async def test_the_newest_finished_generation_in_scope_answers(jobs):
    for now, tenant in ((100.0, "acme"), (200.0, "acme"), (300.0, "rival")):
        await admitted(jobs, now=now, tenant=tenant)
        (generation,) = await jobs.claim("edge", now + 30, 10, now)
        assert await jobs.finished(tenant, generation.fingerprint, now) is None
        await jobs.finish(generation, "edge", "done", now + 5, result=a_result(generation))
    mark = generation.fingerprint
    assert (await jobs.finished("acme", mark, 0.0)).finished == 205.0
    assert (await jobs.finished(None, mark, 0.0)).finished == 305.0
    assert (await jobs.finished(None, mark, 0.0)).result == a_result(generation)
    assert await jobs.finished("acme", mark, 205.0) is None
    assert await jobs.finished("acme", "another", 0.0) is None
    assert await jobs.last_answer() == 305.0


async def test_the_queue_is_what_waits_and_what_runs(jobs):
    assert await jobs.waiting() == (0, 0.0)
    assert await jobs.last_answer() is None
    await admitted(jobs, request={"num_images": 3, "steps": 20})
    await admitted(jobs, now=101.0, join="k")
    shared = await admitted(jobs, now=102.0, join="k")
    await jobs.claim("edge", 130.0, 3, 102.0)
    assert await jobs.waiting() == (4, pytest.approx(0.7))
    (generation,) = await jobs.claim("edge", 130.0, 1, 103.0)
    await jobs.finish(generation, "edge", "failed", 104.0, problem=GONE)
    assert (await jobs.job(shared.id, None)).state == "failed"
    assert await jobs.waiting() == (3, pytest.approx(0.6))
    assert await jobs.last_answer() is None, "a problem says nothing of the predictor"


async def test_a_generation_that_cannot_be_read_does_not_keep_others_from_their_turn(database, database_url):
    async with edges(database_url) as (jobs,):
        broken = await admitted(jobs, now=100.0)
        async with database.write() as connection:
            unreadable = update(generations).where(generations.c.id == broken.generation.id)
            await connection.execute(unreadable.values(request='{"prompt": 7}'))
        sound = await admitted(jobs, now=101.0)
        assert [generation.id for generation in await jobs.claim("edge", 140.0, 10, 110.0)] == [sound.generation.id]
