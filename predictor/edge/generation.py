"""What every dialect does with a request: have it admitted, wait for it, and hand out what came of it."""

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from predictor.asgi.journal import Entry
from predictor.asgi.tracing import Tracer
from predictor.core.account import Caller
from predictor.core.jobs import Job, Result
from predictor.core.problems import Cancelled, DeadlineExceeded, InternalError, Problem
from predictor.edge.admission import Admissions, Ask
from predictor.edge.bus import Event
from predictor.edge.delivery import Delivery
from predictor.edge.following import Following, progress
from predictor.edge.holding import Holding


class Generations:
    """One for each edge process; every method belongs to one connection."""

    def __init__(
        self,
        admissions: Admissions,
        following: Following,
        holding: Holding,
        delivery: Delivery,
        tracer: Tracer,
        clock: Callable[[], float],
    ) -> None:
        self.admissions = admissions
        self.following = following
        self.holding = holding
        self.delivery = delivery
        self.tracer = tracer
        self.clock = clock

    async def begin(self, caller: Caller, ask: Ask, entry: Entry) -> Job:
        """The job that answers `ask`."""
        with self.tracer.span("admission"):
            job = await self.admissions.admit(caller, ask)
        self.tracer.describe(job.generation.request)
        facts: dict[str, str | bool] = {
            "job": job.id,
            "generation": job.generation.id,
            "cached": job.cached,
            "joined": job.joined,
        }
        self.tracer.tell({f"sdzero.{name}": value for name, value in facts.items()})
        entry.facts |= facts
        for name in ("steps", "height", "width", "sampler", "num_images"):
            entry.facts[name] = getattr(job.generation.request, name)
        return job

    async def finish(self, job: Job, ask: Ask, *, will_retry: bool) -> Job:
        """The job when it has ended, or still active where the client asked for that after a while.

        Raises:
            Problem: it ended without pictures.
        """
        told: Event | None = None
        if job.state == "active":
            with self.holding.held(job, will_retry=will_retry):
                job, told = await self.following.ended(job, self._until(ask, job))
        if job.state == "active" and ask.patience.job_after is None:
            raise await self._late(job, told)
        raise_if_ended_badly(job)
        return job

    async def watch(self, job: Job, ask: Ask) -> AsyncGenerator[Event | Job | None, None]:
        """What happens to the job until it has ended well; None about once a second.

        Nobody asks again for a stream that has begun: who leaves it, cancels.

        Raises:
            Problem: it ended without pictures.
        """
        told: Event | None = None
        with self.holding.held(job, will_retry=False):
            async with aclosing(self.following.events(job)) as events:
                async for event in events:
                    if isinstance(event, Job):
                        raise_if_ended_badly(event)
                        yield event
                        continue
                    told = event or told
                    if ask.patience.deadline is not None and self.clock() >= ask.patience.deadline:
                        raise await self._late(job, told)
                    yield event

    def _until(self, ask: Ask, job: Job) -> float | None:
        moments = [ask.patience.deadline]
        if ask.patience.job_after is not None:
            moments.append(job.created + ask.patience.job_after)
        return min((moment for moment in moments if moment is not None), default=None)

    async def _late(self, job: Job, told: Event | None) -> Problem:
        waits = f"; the start was seen last: {progress(told)['phase']}" if told and told.name == "waking" else ""
        problem = DeadlineExceeded(f"the images were not done before the client's deadline{waits}")
        await self.holding.cancel(job, problem)
        return problem


def raise_if_ended_badly(job: Job) -> None:
    """Raise the problem of a job that has failed or was cancelled."""
    if job.state == "cancelled":
        raise job.problem.problem() if job.problem else Cancelled("the job was cancelled")
    if job.state == "failed":
        raise job.problem.problem() if job.problem else InternalError("the job failed")


def result_of(job: Job) -> Result:
    """The result of a job that is done."""
    result = job.generation.result
    assert job.state == "done"
    assert result is not None
    return result
