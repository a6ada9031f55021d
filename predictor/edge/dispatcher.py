"""Runs generations: claims them, has their pictures made (`making.py`), and ends them with their jobs.

A claim is a lease in the database. Whoever holds it renews it; when an edge dies its leases run out, and another edge
(or the same one, started again) claims what it held. A generation ends by a compare-and-set on its claim, in the
transaction that ends its jobs, so however many edges believe that they run it, it has one outcome.
"""

import asyncio
import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Literal

import structlog

from predictor.asgi.tracing import Tracer
from predictor.core.account import megapixel_steps
from predictor.core.jobs import Generation, Result
from predictor.core.problems import InternalError, Problem, ProblemRecord, StoreUnavailable
from predictor.edge.bus import Bus
from predictor.edge.making import AGAIN, LONGEST, Maker
from predictor.edge.metrics import Metrics
from predictor.edge.stores.jobs import Jobs

LEASE = 30.0  # seconds after which an edge that says nothing counts as dead
RENEWED = 2.0  # seconds between two renewals, at which an edge learns what was cancelled at another
PAUSE = 1.0  # seconds between two looks into the database for what other edges left
MOST = 64  # images of one request, at most (`EngineSettings.max_images`)
log = structlog.get_logger("sdzero.edge")


class Dispatcher:
    """One for each edge process; `run` is its life.

    Args:
        edge: this process's name in leases.
        images_in_flight: how many images the predictor is asked for at once.
        attempts: how often a generation is started when predictors die under it.
        clock: seconds since the epoch.
    """

    def __init__(
        self,
        edge: str,
        *,
        jobs: Jobs,
        maker: Maker,
        bus: Bus,
        metrics: Metrics,
        tracer: Tracer,
        images_in_flight: int,
        attempts: int,
        clock: Callable[[], float],
    ) -> None:
        self.edge = edge
        self._jobs = jobs
        self._maker = maker
        self._bus = bus
        self._metrics = metrics
        self._tracer = tracer
        self._images_in_flight = images_in_flight
        self._attempts = attempts
        self._clock = clock
        self._running: dict[str, tuple[Generation, asyncio.Task[None]]] = {}
        self._with_previews: set[str] = set()  # whose followers want to see them grow
        self._nudged = asyncio.Event()

    def nudge(self, *, previews_of: str | None = None) -> None:
        """There is something new to claim; some generation's followers may want previews of it, if it runs here."""
        if previews_of is not None:
            self._with_previews.add(previews_of)
        self._nudged.set()

    async def run(self) -> None:
        """Claim and run until cancelled; then hand back what is not done."""
        renewing = asyncio.create_task(self._renew())
        try:
            while True:
                self._nudged.clear()
                with not_for_long():
                    await self._claim()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(PAUSE):
                        await self._nudged.wait()
        finally:
            renewing.cancel()
            await self._hand_back()

    def cancelled(self, generation: str) -> None:
        """Nobody wants this generation any more: stop it here, if it runs here."""
        if generation in self._running:
            self._running[generation][1].cancel()

    async def _claim(self) -> None:
        busy = sum(generation.request.num_images for generation, _ in self._running.values())
        # One request of many images must not wait for ever for more room than there is.
        room = self._images_in_flight - busy if busy else max(self._images_in_flight, MOST)
        if room <= 0:
            return
        now = self._clock()
        for generation in await self._jobs.claim(self.edge, now + LEASE, room, now):
            task = asyncio.create_task(self._run(generation))
            self._running[generation.id] = (generation, task)
            task.add_done_callback(functools.partial(self._done, generation.id))

    def _done(self, id: str, _: "asyncio.Task[None]") -> None:
        self._running.pop(id, None)
        self._with_previews.discard(id)
        self.nudge()

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(RENEWED)
            with not_for_long():
                now, held = self._clock(), set(self._running)
                for id in held - await self._jobs.renew(self.edge, now + LEASE, held):
                    self.cancelled(id)
                self._metrics.waiting_images.set((await self._jobs.waiting())[0])
                for job in await self._jobs.abandoned(now):
                    if job.generation.state == "cancelled":
                        self.cancelled(job.generation.id)

    async def _hand_back(self) -> None:
        running = list(self._running.values())
        for _, task in running:
            task.cancel()
        await asyncio.gather(*(task for _, task in running), return_exceptions=True)
        for generation, _ in running:
            with contextlib.suppress(StoreUnavailable):
                await self._jobs.release(generation, self.edge)

    async def _run(self, generation: Generation) -> None:
        try:
            if generation.attempt > self._attempts:
                raise InternalError(f"the edge ended {self._attempts} times while it made these images")
            with self._tracer.span("generation", kept=generation.id) as span:
                span.tell({"sdzero.generation": generation.id, "sdzero.attempt": generation.attempt})
                result = await self._maker.make(generation, previews=generation.id in self._with_previews)
        except Problem as problem:
            await self._end(generation, "failed", problem=problem.record())
        except Exception:
            log.exception("bug", generation=generation.id)
            await self._end(generation, "failed", problem=InternalError("internal error").record())
        else:
            await self._end(generation, "done", result=result)
            self._metrics.generated(len(result.images), result.gpu_seconds, megapixel_steps(generation.request))

    async def _end(
        self,
        generation: Generation,
        state: Literal["done", "failed"],
        *,
        result: Result | None = None,
        problem: ProblemRecord | None = None,
    ) -> None:
        """Write the outcome down; a database that is away is waited for, because the images are worth it."""
        pause = AGAIN
        while True:
            try:
                ended = await self._jobs.finish(
                    generation, self.edge, state, self._clock(), result=result, problem=problem
                )
                break
            except StoreUnavailable:
                await asyncio.sleep(pause)
                pause = min(2 * pause, LONGEST)
        if ended is None:
            log.warning("outcome of another edge stands", generation=generation.id, state=state)
        await self._bus.publish(generation.id, "ended", {"state": state})
        await self._bus.close(generation.id)


@contextlib.contextmanager
def not_for_long() -> Iterator[None]:
    """What is tried again in a moment may fail now: an edge that stopped claiming would look as alive as before."""
    try:
        yield
    except StoreUnavailable:
        pass
    except Exception:
        log.exception("bug")
