"""Waiting for a job's end, and telling what happens on the way.

The database has the truth; the bus only says it sooner. Whoever waits therefore looks into the database as well, soon
after the beginning (the end may have come before anybody listened) and then now and again.
"""

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

import msgspec

from predictor.core.jobs import Job
from predictor.core.problems import StoreUnavailable
from predictor.edge.bus import Bus, Event
from predictor.edge.stores.jobs import Jobs

LOOK = 10  # silences of the bus, a second each, between two looks into the database


class Following:
    """One for each edge process."""

    def __init__(self, jobs: Jobs, bus: Bus, clock: Callable[[], float]) -> None:
        self._jobs = jobs
        self._bus = bus
        self._clock = clock

    async def events(self, job: Job, after: str | None = None) -> AsyncGenerator[Event | Job | None, None]:
        """What happens to the job's generation from the event `after` on, None about once a second, its end at last."""
        if job.state != "active":
            yield job
            return
        silences = 0
        async with aclosing(self._bus.follow(job.generation.id, after)) as events:
            async for event in events:
                if event is not None and event.name != "ended":
                    yield event
                    continue
                if event is not None or silences % LOOK == 0:
                    now = await self._look(job)
                    if now.state != "active":
                        yield now
                        return
                if event is None:
                    silences += 1
                    yield None

    async def ended(self, job: Job, until: float | None = None) -> tuple[Job, Event | None]:
        """The job when it has ended, or as it is at `until`, seconds since the epoch; and the last event until then."""
        told: Event | None = None
        async with aclosing(self.events(job)) as events:
            async for event in events:
                if isinstance(event, Job):
                    return event, told
                told = event or told
                if until is not None and self._clock() >= until:
                    return await self._look(job), told
        return job, told

    async def _look(self, job: Job) -> Job:
        try:
            return await self._jobs.job(job.id, None)
        except StoreUnavailable:
            return job  # it will be back


def progress(event: Event) -> dict[str, object]:
    """The event's data."""
    return msgspec.json.decode(event.data, type=dict[str, object])
