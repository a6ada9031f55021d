"""Makes the pictures of one generation: asks the predictor, tells the bus what happens, and stores what came."""

import asyncio
import contextlib
from collections.abc import Callable

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
    QueueFull,
    StoreUnavailable,
)
from predictor.core.request import PARAMETERS, ImageEncoding
from predictor.edge.bus import Bus
from predictor.edge.metrics import Metrics
from predictor.edge.model import Model
from predictor.edge.moderation import Moderation
from predictor.edge.pictures import Pictures as Packer
from predictor.edge.pods import Pods
from predictor.edge.predictor import Accepted, Pictures, Predictor, Progress, Waking
from predictor.edge.stores.cache import ResultCache
from predictor.edge.stores.cold_starts import ColdStarts
from predictor.edge.stores.images import Images
from predictor.edge.wake import Watch

AGAIN = 0.5  # seconds before a busy predictor or a store that is away is tried again; doubles
LONGEST = 8.0
TOLD = 1.0  # seconds between two events of a start
log = structlog.get_logger("sdzero.edge")


class Maker:
    """One for each edge process.

    Args:
        attempts: how often a generation is sent when predictors die under it.
        metadata: whether prompt and parameters are written into the files.
        clock: seconds since the epoch.
    """

    def __init__(
        self,
        *,
        predictor: Predictor,
        images: Images,
        packer: Packer,
        bus: Bus,
        cache: ResultCache,
        model: Model,
        moderation: Moderation,
        watch: Watch,
        pods: Pods,
        cold_starts: ColdStarts,
        metrics: Metrics,
        tracer: Tracer,
        attempts: int,
        metadata: bool,
        clock: Callable[[], float],
    ) -> None:
        self._predictor = predictor
        self._images = images
        self._packer = packer
        self._bus = bus
        self._cache = cache
        self._model = model
        self._moderation = moderation
        self._watch = watch
        self._pods = pods
        self._cold_starts = cold_starts
        self._metrics = metrics
        self._tracer = tracer
        self._attempts = attempts
        self._metadata = metadata
        self._clock = clock

    async def make(self, generation: Generation, *, previews: bool) -> Result:
        """The pictures, made and stored; tried again while it is the service's to mend.

        Raises:
            Problem: there are none, and trying again would not help.
        """
        pause, deaths = AGAIN, 0
        made: tuple[Pictures, float] | None = None
        while True:
            try:
                if made is None:
                    with self._tracer.call(generation.request):
                        made = await self._ask(generation, previews)
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

    async def _ask(self, generation: Generation, previews: bool) -> tuple[Pictures, float]:
        """The predictor's answer, and how long its start took that this request has caused."""
        began = self._clock()
        left = generation.deadline - began
        if left <= 0:
            raise DeadlineExceeded("the time ran out before the images were begun")
        if self._watch.sleeps(began):
            self._metrics.wakes.inc()
        self._watch.sent(began)
        known = self._model.known
        start = _Start(generation.id, self._watch, self._pods, self._bus, self._clock)
        telling = asyncio.create_task(start.keep_telling())
        accepted: float | None = None
        woken: float | None = None
        try:
            updates = self._predictor.generate(
                generation.id,
                generation.request,
                seconds=left,
                previews=previews and known is not None and known.previews,
                parameters=tuple(PARAMETERS) if known is None else known.parameters,
                trace=self._tracer.headers(),
            )
            async with contextlib.aclosing(updates):
                async for update in updates:
                    match update:
                        case Waking():
                            await start.reached(update.phase)
                        case Accepted():
                            telling.cancel()
                            accepted = self._clock()
                            woken = self._watch.answered(accepted)
                        case Progress():
                            data: dict[str, object] = {"step": update.step, "steps": update.steps}
                            if update.previews:
                                data["previews"] = update.previews
                            await self._bus.publish(generation.id, "progress", data)
                        case Pictures():
                            return update, await self._learned(accepted, woken, update)
            raise InternalError("the predictor ended without pictures and without a problem")
        finally:
            telling.cancel()
            if start.seen:
                self._tracer.past("wake", began, accepted or self._clock(), {"sdzero.phase": start.phase})
            self._watch.ended(self._clock(), answered=accepted is not None)

    async def _learned(self, accepted: float | None, woken: float | None, pictures: Pictures) -> float:
        """Seconds of the start that this request has caused, noted for estimates to come; 0 if it caused none."""
        # One that only looked asleep, because this edge has not seen it since it started, has not started for us.
        if accepted is None or woken is None or not pictures.cold_start:
            return 0.0
        self._watch.started(woken)
        self._metrics.cold_start_seconds.observe(woken)
        # Pictures are worth more than a note on how long they took.
        with contextlib.suppress(StoreUnavailable):
            await self._cold_starts.add(accepted - woken, woken, pictures.cold_phases)
        return woken

    async def _store(self, generation: Generation, pictures: Pictures, waited: float) -> Result:
        """Store first, acknowledge later: when the jobs end, their images are there."""
        stored = []
        for file, seed in zip(pictures.files, pictures.seeds, strict=True):
            text = infotext(generation.request, seed, self._model.name, pictures.revision) if self._metadata else None
            content = await self._packer.delivered(file, ImageEncoding(), text)
            name = await self._images.keep(generation, content, "png", self._clock())
            stored.append(StoredImage(name, seed, len(content)))
            await self._cache.put_image(name, content)
        self._watch.spent(pictures.gpu_seconds, megapixel_steps(generation.request))
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


class _Start:
    """Tells a generation's followers how the predictor starts, if it has to."""

    def __init__(self, generation: str, watch: Watch, pods: Pods, bus: Bus, clock: Callable[[], float]) -> None:
        self.phase = "unreachable"  # nobody has answered yet
        self.seen = watch.waking_since is not None  # whoever has woken it
        self._generation = generation
        self._watch = watch
        self._pods = pods
        self._bus = bus
        self._clock = clock

    async def reached(self, phase: str) -> None:
        """The start has come so far."""
        self.seen = True
        if phase != self.phase:
            self.phase = phase
            await self._tell()

    async def keep_telling(self) -> None:
        """Tell about once a second, until cancelled."""
        while True:
            await self._tell()
            await asyncio.sleep(TOLD)

    async def _tell(self) -> None:
        since = self._watch.waking_since
        if since is None:
            return
        now = self._clock()
        eta = self._watch.waits_for_start(now)
        data = {**self._pods.report(self.phase), "seconds": now - since, "eta": eta}
        await self._bus.publish(self._generation, "waking", data)
