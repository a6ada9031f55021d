"""Whatever happens to jobs and in which order, none is lost and none has two outcomes: edges that die, clients that go.

The machine keeps only what a caller could know, and looks into the database after every step.
"""

import asyncio
import shutil
import tempfile
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule
from sqlalchemy import select

from predictor.core.jobs import Generation, Job, Verdict
from predictor.core.problems import Cancelled, Conflict, InternalError, QueueFull, QuotaExceeded
from predictor.edge.stores.database import Database
from predictor.edge.stores.jobs import Jobs
from predictor.edge.stores.schema import generations
from tests.edge.stores.given import a_result, an_admission, announce, announced, booked, rows

LEASE = 30.0
MOST = 12  # jobs that may wait
OWNERS = st.sampled_from(["edge-a", "edge-b", "edge-c"])
BUG = InternalError("a bug").record()
GONE = Cancelled("taken back").record()


class Life(RuleBasedStateMachine):
    """Callers, three edges and their clock, on one SQLite file."""

    empty: Path  # a database that was migrated once, for all

    jobs_made = Bundle("jobs_made")
    claims = Bundle("claims")

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.folder = Path(tempfile.mkdtemp(prefix="sdzero-model-"))
        shutil.copy(self.empty, self.folder / "model.db")
        self.database = self.do(Database.open(f"sqlite:///{self.folder / 'model.db'}"))
        self.jobs = Jobs(self.database, announce)
        self.now = 1000.0
        self.known: dict[str, Job] = {}  # every job that was admitted
        self.outcomes: dict[str, Job] = {}  # how it ended, as seen first
        self.finished: Counter[str] = Counter()  # accepted ends by generation
        self.spent = 0.0  # GPU seconds of accepted ends
        self.leases: dict[str, tuple[str, float]] = {}  # generation: owner, until

    def do(self, awaitable):
        return self.loop.run_until_complete(awaitable)

    def teardown(self):
        try:
            self.everything_ends_at_last()
        finally:
            self.do(self.database.close())
            self.loop.close()
            shutil.rmtree(self.folder)

    @rule(
        target=jobs_made,
        join=st.sampled_from([None, "k1", "k2"]),
        key=st.sampled_from(["key_1", "key_2"]),
        holder=st.none() | OWNERS,
        once=st.sampled_from([None, None, "i1", "i2"]),
        body=st.sampled_from(["b", "b", "c"]),
        hook=st.booleans(),
        images=st.integers(1, 3),
        threshold=st.sampled_from([None, 0.5, 0.9]),
        limit=st.sampled_from([0, 0, 3]),
    )
    def admit(self, join, key, holder, once, body, hook, images, threshold, limit):
        return self._admit(
            join=join,
            key_id=key,
            holder=holder,
            held_until=self.now + LEASE if holder else None,
            idempotency_key=once,
            body_hash=body,
            webhook="https://a.example" if hook else None,
            request={"num_images": images},
            verdict=Verdict("default", threshold),
            concurrent_jobs=limit,
        )

    @rule(target=jobs_made, hook=st.booleans(), threshold=st.sampled_from([None, 0.5]))
    def admit_what_is_cached(self, hook, threshold):
        done = [job.generation for job in self.outcomes.values() if job.generation.state == "done"]
        if not done:
            return multiple()
        verdict = Verdict("default", threshold)
        return self._admit(cached=done[-1], verdict=verdict, webhook="https://a.example" if hook else None)

    def _admit(self, **admission):
        active = [job for job in self.known.values() if job.id not in self.outcomes]
        made = an_admission(now=self.now, **admission)
        mine = [job for job in active if job.key_id == made.job.key_id]
        try:
            admitted = self.do(self.jobs.admit(made, self.now, MOST))
        except Conflict:
            assert any(job.idempotency_key == made.job.idempotency_key for job in self.known.values())
            return multiple()
        except QuotaExceeded:
            assert len(mine) >= made.limits.concurrent_jobs > 0
            return multiple()
        except QueueFull:
            assert len(active) >= MOST
            return multiple()
        job = admitted.job
        assert admitted.fresh == (job.id not in self.known)
        if admitted.fresh:
            self.known[job.id] = job
            assert job.joined == any(other.generation.id == job.generation.id for other in active)
        return job.id

    @rule(target=claims, owner=OWNERS, images=st.integers(1, 6))
    def claim(self, owner, images):
        claimed = self.do(self.jobs.claim(owner, self.now + LEASE, images, self.now))
        assert sum(generation.request.num_images for generation in claimed) <= images
        for generation in claimed:
            _, until = self.leases.get(generation.id, ("", 0.0))
            assert until <= self.now, "two run it"
            assert self.finished[generation.id] == 0
            self.leases[generation.id] = (owner, self.now + LEASE)
        return multiple(*((owner, generation) for generation in claimed))

    @rule(claim=claims, well=st.booleans(), score=st.sampled_from([0.1, 0.7]))
    def finish(self, claim, well, score):
        """Also by an owner whose lease has run out, and for the second time."""
        owner, generation = claim
        if well:
            result = a_result(generation, scores=(score,))
            ended = self.do(self.jobs.finish(generation, owner, "done", self.now, result=result))
        else:
            ended = self.do(self.jobs.finish(generation, owner, "failed", self.now, problem=BUG))
        if ended is not None:
            assert ended, "it ran for nobody"
            self.finished[generation.id] += 1
            self.spent += 0.5 if well else 0.0
            assert sum(not job.joined for job in ended) == 1

    @rule(claim=consumes(claims))
    def release(self, claim):
        owner, generation = claim
        before = self._generation(generation.id)
        self.do(self.jobs.release(generation, owner))
        after = self._generation(generation.id)
        if after.state == "waiting":
            self.leases.pop(generation.id, None)
        else:
            assert after == before

    @rule(owner=OWNERS, share=st.sampled_from([1, 2]))
    def renew(self, owner, share):
        """An edge may have forgotten some of what it claimed."""
        held = sorted(id for id, (who, _) in self.leases.items() if who == owner)[::share]
        for id in self.do(self.jobs.renew(owner, self.now + LEASE, held)):
            assert self._generation(id).state == "running"
            self.leases[id] = (owner, self.now + LEASE)

    @rule(id=jobs_made)
    def cancel(self, id):
        was_active = id not in self.outcomes
        job, alone = self.do(self.jobs.cancel(id, None, self.now, GONE))
        assert job.state != "active"
        assert was_active or not alone
        assert alone == (was_active and job.generation.state == "cancelled")

    @rule(id=jobs_made, holder=OWNERS | st.just(""), seconds=st.sampled_from([1.0, LEASE]))
    def hold(self, id, holder, seconds):
        self.do(self.jobs.hold(id, holder, self.now + seconds))

    @rule(id=jobs_made, owner=OWNERS)
    def keep(self, id, owner):
        self.do(self.jobs.keep(owner, self.now + LEASE, [id]))

    @rule()
    def abandoned(self):
        for job in self.do(self.jobs.abandoned(self.now)):
            assert (job.kind, job.state) == ("sync", "cancelled")
            assert job.id not in self.outcomes

    @rule(seconds=st.sampled_from([0.5, 12.0, LEASE]))
    def time_passes(self, seconds):
        self.now += seconds

    @invariant()
    def every_end_is_final_booked_once_and_announced_once(self):
        page, more = self.do(self.jobs.page(tenant=None, key_id=None, state=None, limit=10_000, after=None))
        assert more is None
        assert {job.id for job in page} == set(self.known)
        for job in page:
            assert (job.finished is None) == (job.state == "active")
            if job.state == "active":
                assert job.id not in self.outcomes
                assert job.generation.state in ("waiting", "running"), "it would wait for ever"
            else:
                # The generation of a cancelled job may go on for others.
                first = self.outcomes.setdefault(job.id, job)
                assert (job.state, job.finished, job.problem) == (first.state, first.finished, first.problem)
        lines, hooks = self.do(booked(self.jobs)), self.do(announced(self.jobs))
        assert Counter(line.job_id for line in lines) == Counter(list(self.outcomes))
        assert Counter(hook.job_id for hook in hooks) == Counter(
            [job.id for job in self.outcomes.values() if job.webhook is not None]
        )
        assert max(self.finished.values(), default=0) <= 1
        assert sum(line.gpu_seconds for line in lines) == pytest.approx(self.spent)

    @invariant()
    def whoever_waits_alone_may_be_joined_and_nobody_runs_for_nobody(self):
        wanted = {job.generation.id for job in self.known.values() if job.id not in self.outcomes}
        for row in self.do(rows(self.jobs, select(generations))):
            live = row.state in ("waiting", "running")
            assert live == (row.id in wanted)
            assert live or row.active_key is None
            assert (row.owner is None) == (row.lease_until is None) == (row.state != "running")

    def everything_ends_at_last(self):
        """All edges have died: a new one finds whatever is still wanted."""
        self.every_end_is_final_booked_once_and_announced_once()
        self.now += LEASE
        wanted = {job.generation.id for job in self.known.values() if job.id not in self.outcomes}
        claimed = self.do(self.jobs.claim("edge-new", self.now + LEASE, 1000, self.now))
        assert {generation.id for generation in claimed} == wanted
        for generation in claimed:
            assert self.do(self.jobs.finish(generation, "edge-new", "failed", self.now, problem=BUG)) is not None
        self.every_end_is_final_booked_once_and_announced_once()
        assert set(self.outcomes) == set(self.known)

    def _generation(self, id) -> Generation:
        (job,) = [job for job in self.known.values() if job.generation.id == id and not job.cached][:1]
        return self.do(self.jobs.job(job.id, None)).generation


@pytest.fixture(scope="module", autouse=True)
def _migrated_once(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "empty.db"

    async def migrate() -> None:
        await (await Database.open(f"sqlite:///{path}")).close()

    asyncio.run(migrate())
    Life.empty = path


Life.TestCase.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestLife = Life.TestCase
