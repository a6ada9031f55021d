"""Runs generations: claims them, has the predictor make their pictures, stores these, and ends the jobs.

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
from predictor.core.infotext import infotext
from predictor.core.jobs import Generation, Result, StoredImage
from predictor.core.problems import (
    DeadlineExceeded,
    InternalError,
    OutOfMemory,
    Problem,
    ProblemRecord,
    QueueFull,
    StoreUnavailable,
)
from predictor.core.request import PARAMETERS, ImageEncoding
from predictor.edge.bus import Bus
from predictor.edge.metrics import Metrics
from predictor.edge.model import Model
from predictor.edge.moderation import Moderation
from predictor.edge.pictures import Pictures as Packer
from predictor.edge.predictor import Accepted, Pictures, Predictor, Progress, Waking
from predictor.edge.stores.cache import ResultCache
from predictor.edge.stores.cold_starts import ColdStarts
from predictor.edge.stores.images import Images
from predictor.edge.stores.jobs import Jobs
from predictor.edge.wake import Watch

LEASE = 30.0  # seconds after which an edge that says nothing counts as dead
RENEWED = 2.0  # seconds between two renewals, at which an edge learns what was cancelled at another
PAUSE = 1.0  # seconds between two looks into the database for what other edges left
AGAIN = 0.5  # seconds before a busy predictor or a store that is away is tried again; doubles
LONGEST = 8.0
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
        predictor: Predictor,
        images: Images,
        packer: Packer,
        bus: Bus,
        cache: ResultCache,
        model: Model,
        moderation: Moderation,
        watch: Watch,
        cold_starts: ColdStarts,
        metrics: Metrics,
        tracer: Tracer,
        images_in_flight: int,
        attempts: int,
        metadata: bool,
        clock: Callable[[], float],
    ) -> None:
        self.edge = edge
        self.with_previews: set[str] = set()  # generations whose followers want to see them grow
        self._jobs = jobs
        self._predictor = predictor
        self._images = images
        self._packer = packer
        self._bus = bus
        self._cache = cache
        self._moderation = moderation
        self._watch = watch
        self._cold_starts = cold_starts
        self._metrics = metrics
        self._tracer = tracer
        self._model = model
        self._images_in_flight = images_in_flight
        self._attempts = attempts
        self._metadata = metadata
        self._clock = clock
        self._running: dict[str, tuple[Generation, asyncio.Task[None]]] = {}
        self._nudged = asyncio.Event()

    def nudge(self) -> None:
        """There is something new to claim, or to cancel."""
        self._nudged.set()

    async def run(self) -> None:
        """Claim and run until cancelled; then hand back what is not done."""
        renewing = asyncio.create_task(self._renew())
        try:
            while True:
                self._nudged.clear()
                with _not_for_long():
                    await self._claim()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._nudged.wait(), PAUSE)
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
        self.with_previews.discard(id)
        self.nudge()

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(RENEWED)
            with _not_for_long():
                now, held = self._clock(), set(self._running)
                for id in held - await self._jobs.renew(self.edge, now + LEASE, held):
                    self.cancelled(id)
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
                result = await self._generate(generation)
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

    async def _generate(self, generation: Generation) -> Result:
        """The pictures, made and stored; tried again while it is the service's to mend."""
        pause, deaths = AGAIN, 0
        made: tuple[Pictures, float] | None = None
        while True:
            try:
                if made is None:
                    with self._tracer.call(generation.request):
                        made = await self._ask(generation)
                with self._tracer.span("store"):
                    return await self._store(generation, *made)
            except (QueueFull, OutOfMemory, StoreUnavailable) as busy:
                problem: Problem = busy
            except Problem as lost:
                deaths += 1
                if not lost.retryable or deaths >= self._attempts:
                    raise
                problem = lost
            if self._clock() + pause >= generation.deadline:
                raise DeadlineExceeded(f"the images were not done in time; the last try ended with: {problem.message}")
            log.warning("tried again", generation=generation.id, code=problem.code, pause=pause)
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST)

    async def _ask(self, generation: Generation) -> tuple[Pictures, float]:
        """The predictor's answer, and how long it took to wake."""
        left = generation.deadline - self._clock()
        if left <= 0:
            raise DeadlineExceeded("the time ran out before the images were begun")
        began = self._clock()
        waking = unseen = Waking("unreachable")
        woken: float | None = None
        answered = False
        cold = self._watch.sleeps(began)
        if cold:
            self._metrics.wakes.inc()
        self._watch.sent(began)
        slept = self._watch.waking_since is not None  # whoever has woken it
        taken: float | None = None

        async def tell() -> None:
            if self._watch.waking_since is not None:
                now = self._clock()
                seconds, eta = now - self._watch.waking_since, self._watch.waits_for_start(now)
                data = {"phase": waking.phase, "seconds": seconds, "eta": eta}
                await self._bus.publish(generation.id, "waking", data)

        async def tell_how_it_wakes() -> None:
            while True:
                await tell()
                await asyncio.sleep(1.0)

        known = self._model.known
        previews = generation.id in self.with_previews and known is not None and known.previews
        telling = asyncio.create_task(tell_how_it_wakes())
        try:
            updates = self._predictor.generate(
                generation.id,
                generation.request,
                seconds=left,
                previews=previews,
                parameters=tuple(PARAMETERS) if known is None else known.parameters,
                trace=self._tracer.headers(),
            )
            async with contextlib.aclosing(updates):
                async for update in updates:
                    match update:
                        case Waking():
                            news, waking = update.phase != waking.phase, update
                            if news:
                                await tell()
                        case Accepted():
                            telling.cancel()
                            answered, taken = True, self._clock()
                            woken = self._watch.answered(taken)
                            if woken is not None:
                                self._metrics.cold_start_seconds.observe(woken)
                        case Progress():
                            data: dict[str, object] = {"step": update.step, "steps": update.steps}
                            if update.previews:
                                data["previews"] = update.previews
                            await self._bus.publish(generation.id, "progress", data)
                        case Pictures():
                            if woken is not None:
                                # Pictures are worth more than a note on how long they took.
                                with contextlib.suppress(StoreUnavailable):
                                    await self._cold_starts.add(began, woken, update.cold_phases)
                            return update, woken or 0.0
            raise InternalError("the predictor ended without pictures and without a problem")
        finally:
            telling.cancel()
            if slept or waking is not unseen:
                self._tracer.past("wake", began, taken or self._clock(), {"sdzero.phase": waking.phase})
            self._watch.ended(self._clock(), answered=answered)

    async def _store(self, generation: Generation, pictures: Pictures, waited: float) -> Result:
        """Store first, acknowledge later: when the jobs end, their images are there."""
        stored = []
        for file, seed in zip(pictures.files, pictures.seeds, strict=True):
            text = infotext(generation.request, seed, self._model.name, pictures.revision) if self._metadata else None
            content = await self._packer.delivered(file, ImageEncoding(), text)
            name = await self._images.keep(generation, content, "png", self._clock())
            stored.append(StoredImage(name, seed, len(content)))
            await self._cache.put_image(name, content)
        cost = megapixel_steps(generation.request)
        self._watch.spent(pictures.gpu_seconds, cost)
        await self._model.saw(pictures.revision)
        return Result(
            images=tuple(stored),
            revision=pictures.revision,
            prompt_tokens=pictures.prompt_tokens,
            negative_prompt_tokens=pictures.negative_prompt_tokens,
            gpu_seconds=pictures.gpu_seconds,
            timing=pictures.timing,
            cold_start=pictures.cold_start or waited > 0,
            waited=waited,
            scores=await self._moderation.scores(pictures.files),
        )


@contextlib.contextmanager
def _not_for_long() -> Iterator[None]:
    """What is tried again in a moment may fail now: an edge that stopped claiming would look as alive as before."""
    try:
        yield
    except StoreUnavailable:
        pass
    except Exception:
        log.exception("bug")
