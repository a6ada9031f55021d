"""Connections that hold a job: when the last of them has gone, so has the job.

A client that hangs up cancels its rows on the GPU. OpenAI's SDKs hang up as well when they lose patience, and ask again
a moment later: for them the job stays a little while, and the next try finds it.
"""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable, Iterator

import structlog

from predictor.core.jobs import Job
from predictor.core.problems import Cancelled, Problem
from predictor.edge.bus import Bus
from predictor.edge.dispatcher import LEASE, RENEWED, Dispatcher, not_for_long
from predictor.edge.stores.jobs import Jobs

COMES_BACK = 12.0  # seconds; OpenAI's SDKs wait 8 at most before they ask again
GOODBYE = 5.0  # seconds; whoever is not gone then is given up, and its lease runs out
log = structlog.get_logger("sdzero.edge")


class Holding:
    """One for each edge process; `run` says to the others that its connections are still there."""

    def __init__(self, jobs: Jobs, bus: Bus, dispatcher: Dispatcher, clock: Callable[[], float]) -> None:
        self._jobs = jobs
        self._bus = bus
        self._dispatcher = dispatcher
        self._clock = clock
        self._connections: Counter[str] = Counter()
        self._leaving: set[asyncio.Task[None]] = set()
        self._alone = asyncio.Event()  # nobody holds anything
        self._alone.set()

    async def run(self) -> None:
        """Until cancelled: keep what is held from being abandoned, and nothing else."""
        while True:
            await asyncio.sleep(RENEWED)
            with not_for_long():
                await self.keep()

    async def keep(self) -> None:
        """Hold on to every job that has a connection here."""
        if self._connections:
            await self._jobs.keep(self._dispatcher.edge, self._clock() + LEASE, self._connections)

    @contextlib.contextmanager
    def held(self, job: Job, *, will_retry: bool) -> Iterator[None]:
        """The time in which a connection waits for the job; if it breaks, nobody may be left to want it."""
        self._connections[job.id] += 1
        self._alone.clear()
        try:
            yield
        except BaseException:
            if self._connections[job.id] == 1:
                task = asyncio.get_running_loop().create_task(self._leave(job, will_retry))
                self._leaving.add(task)
                task.add_done_callback(self._leaving.discard)
            raise
        finally:
            self._connections[job.id] -= 1
            self._connections += Counter()  # without those at zero
            if not self._connections:
                self._alone.set()

    async def cancel(self, job: Job, problem: Problem) -> Job:
        """End the job, and its generation too if nobody else wants that."""
        job, alone = await self._jobs.cancel(job.id, None, self._clock(), problem.record())
        if alone:
            self._dispatcher.cancelled(job.generation.id)
        # Whoever follows looks into the database then; a generation that others want says more later.
        await self._bus.publish(job.generation.id, "ended", {"state": job.state})
        return job

    async def close(self) -> None:
        """Let the last goodbyes be written down, also of connections that were told to end only a moment ago."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GOODBYE):
                await self._alone.wait()
        await asyncio.gather(*self._leaving, return_exceptions=True)

    async def _leave(self, job: Job, will_retry: bool) -> None:
        try:
            if will_retry:
                await self._jobs.hold(job.id, "", self._clock() + COMES_BACK)
            else:
                await self.cancel(job, Cancelled("the client hung up"))
        except Problem as problem:
            # Its lease runs out, and then it is cancelled all the same.
            log.warning("not cancelled yet", job=job.id, code=problem.code)
