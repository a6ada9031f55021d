"""The server's end of the line to its engine: requests out, progress and pictures in, and what happens when it dies."""

import asyncio
import contextlib
import threading
from collections.abc import AsyncGenerator, Callable, Sequence

import msgspec
import numpy as np
import structlog
import zmq
import zmq.asyncio

from predictor import clock
from predictor.core import messages
from predictor.core.problems import DeadlineExceeded, EngineLost, NotReady, Problem, QueueFull
from predictor.core.request import Capabilities, GenerationRequest
from predictor.server.coldstart import ColdStart
from predictor.server.flights import Flight, Flights, Pictures, Progress, Update
from predictor.server.metrics import Metrics
from predictor.server.process import EngineProcess
from predictor.server.sleep import Sleep
from predictor.settings import ServerSettings

LAST_WORDS = 0.1  # seconds in which what an engine sent before its death still arrives
LATE = 2.0  # seconds that a deadline's own answer may take; an engine that hangs gives none
PATIENCE = 2.0  # seconds for an engine to end when asked, or for its last message to arrive
log = structlog.get_logger("sdzero.server")


class EngineLink:
    """Keeps an engine alive, or lets it sleep while nobody needs it, and speaks with it.

    Args:
        engine: the one that is already starting.
        respawn: starts another when it has died or is needed again.
    """

    def __init__(
        self,
        settings: ServerSettings,
        engine: EngineProcess,
        respawn: Callable[[], EngineProcess],
        coldstart: ColdStart,
        metrics: Metrics,
    ) -> None:
        self.capabilities: Capabilities | None = None  # None while no engine is ready, unless it sleeps
        self.cold = True  # until the present engine has made its first picture
        self._settings = settings
        self._engine = engine
        self._respawn = respawn
        self._coldstart = coldstart
        self._metrics = metrics
        self._flights = Flights(self._occupied)
        self._sleep = Sleep(settings.sleep_after_seconds, self._fall_asleep, metrics)
        self._socket: zmq.asyncio.Socket | None = None  # of an engine that takes requests
        self._failure: str | None = None
        self._stopping = False
        self._ready_since = 0.0  # seconds since boot
        self._start_seconds = 0.0  # how long the last start took
        self._image_seconds = 0.0  # device time of recent pictures, each

    async def run(self) -> str | None:
        """Serve until `stop`, through engine deaths; returns why it gave up, None if it did not.

        It gives up when an engine says that it cannot start, and after more than `engine_restarts` deaths in a row
        of engines that were never ready.
        """
        deaths = 0
        with zmq.asyncio.Context() as context:
            while True:
                was_ready = await self._one_life(context)
                code = self._engine.popen.returncode
                self._engine.forget()
                slept = None
                if self._sleep.begun:
                    slept = await self._sleep.over()
                else:
                    was = "held the request" if was_ready else "was starting for the request"
                    self._flights.lose(
                        EngineLost(f"the engine ended while it {was}", retry_after=self._restart_seconds())
                    )
                if self._stopping:
                    return None
                if self._failure is not None:
                    return self._failure
                if slept is not None:
                    deaths = 0
                    log.info("woken", seconds=round(slept, 3))
                    self._metrics.engine_wakes.inc()
                    self._coldstart.woken()
                else:
                    deaths = 0 if was_ready else deaths + 1
                    log.error("engine died", exit_code=code, was_ready=was_ready, deaths_while_starting=deaths)
                    if deaths > self._settings.engine_restarts:
                        return (
                            f"the engine ended {deaths} times in a row before it was ready, last with exit code {code}"
                        )
                    self._metrics.engine_restarts.inc()
                    self._coldstart.engine_died()
                self._engine = self._respawn()

    async def generate(
        self, request: GenerationRequest, *, progress: bool = False, previews: bool = False
    ) -> AsyncGenerator[Update, None]:
        """Accepted, Progress where asked for, then Pictures; close the iterator early to cancel the request.

        One that finds the engine asleep wakes it, and waits.

        Raises:
            NotReady, QueueFull: at once.
            Problem: what the engine ended the request with.
            EngineLost: the engine died.
        """
        self._admit(request)
        flight = self._flights.begin(
            request, self._settings.timeout_seconds, progress=progress or previews, previews=previews
        )
        self._hand_over(flight)
        try:
            while True:
                update = await self._next(flight)
                if isinstance(update, Problem):
                    raise update
                yield update
                if isinstance(update, Pictures):
                    return
        finally:
            if self._flights.end(flight.order.id):
                self._send(messages.Cancel(flight.order.id))

    def not_ready(self) -> NotReady:
        """What a request gets while no engine is ready."""
        remaining = self._restart_seconds() - (clock.now() - self._engine.started)
        phase = self._coldstart.phase
        return NotReady(f"the model is loading; finished so far: {phase}", retry_after=max(1.0, remaining))

    def abandon(self, problem: Problem) -> None:
        """End every request with `problem` and tell the engine."""
        for flight in self._flights:
            self._send(messages.Cancel(flight.order.id))
        self._flights.lose(problem)

    def stop(self) -> None:
        """End the engine, and then `run`."""
        self._stopping = True
        self._sleep.forbid()
        self._end_engine()

    def kill(self) -> None:
        """End the engine outside of an event loop; nothing happens if it has ended."""
        self._engine.stop(PATIENCE)

    def _admit(self, request: GenerationRequest) -> None:
        if self.capabilities is None:
            raise self.not_ready()
        waiting, allowed = self._flights.images, self._settings.queue_images
        excess = waiting + request.num_images - allowed
        # A request larger than the whole queue may still run alone.
        if waiting and excess > 0:
            raise QueueFull(
                f"queue: {waiting} images wait or run and {request.num_images} more were asked for; allowed: {allowed}",
                retry_after=max(1.0, excess * self._image_seconds),
            )

    def _hand_over(self, flight: Flight) -> None:
        """Send it to the engine; while one is woken, nothing, for that gets all of them when it is ready."""
        if self._socket is not None:
            self._coldstart.once("first_request", since="engine_ready")
            self._send(flight.order)

    async def _next(self, flight: Flight) -> Update | Problem:
        waking = self._socket is None
        try:
            return await flight.update(patience=0.0 if waking else LATE)
        except TimeoutError:
            why = "before an engine was ready" if waking else "and the engine did not say so itself"
            raise DeadlineExceeded(f"the request's time ran out {why}") from None

    def _occupied(self) -> None:
        """A request has come or gone."""
        self._metrics.images_in_flight.set(self._flights.images)
        if self._flights:
            self._sleep.forbid()
        elif self._socket is not None:
            self._sleep.allow()

    def _fall_asleep(self) -> None:
        self._socket, self.cold = None, True
        self._end_engine()

    def _end_engine(self) -> None:
        self._engine.popen.terminate()
        asyncio.get_running_loop().call_later(PATIENCE, self._engine.popen.kill)

    async def _one_life(self, context: zmq.asyncio.Context) -> bool:
        """Listen to the present engine until it is dead; returns whether it took requests until then."""
        engine, loop = self._engine, asyncio.get_running_loop()
        died = asyncio.Event()

        def watch() -> None:
            engine.popen.wait()
            with contextlib.suppress(RuntimeError):  # the loop has closed, so nobody waits
                loop.call_soon_threadsafe(died.set)

        threading.Thread(target=watch, name="engine-watch", daemon=True).start()
        with context.socket(zmq.DEALER) as socket:
            socket.linger = 0
            socket.bind(engine.address)
            reader = asyncio.create_task(self._read(socket))
            death = asyncio.create_task(died.wait())
            try:
                await asyncio.wait({reader, death}, return_when=asyncio.FIRST_COMPLETED)
                if not self._sleep.begun:
                    await self._hear_out(reader)
                was_ready = self._socket is not None
                await death
                return was_ready
            finally:
                self._socket = None
                for task in (reader, death):
                    task.cancel()
                await asyncio.gather(reader, death, return_exceptions=True)

    async def _hear_out(self, reader: asyncio.Task[None]) -> None:
        """An engine has ended unasked, or must for what it said: hear its last words, and take no more requests."""
        self._sleep.forbid()
        engine = self._engine.popen
        if reader.done() and self._failure is None:
            log.error("engine spoke nonsense", exc_info=reader.exception())
            engine.kill()
        elif self._failure is not None:
            asyncio.get_running_loop().call_later(PATIENCE, engine.kill)
        else:
            # One that cannot start has said why, even if a busy machine brings it late.
            spoke = engine.returncode == messages.CANNOT_START
            await asyncio.wait({reader}, timeout=PATIENCE if spoke else LAST_WORDS)
        self.capabilities, self.cold = None, True
        self._metrics.ready.set(0)

    async def _read(self, socket: zmq.asyncio.Socket) -> None:
        while self._failure is None:
            head, *buffers = await socket.recv_multipart(copy=False)
            message = messages.decode_from_engine(head.bytes)
            if isinstance(message, messages.Ready):
                self._ready(message.capabilities, socket)
            elif not self._sleep.begun:  # after that it can only speak of what was taken back
                self._receive(message, buffers)

    def _ready(self, capabilities: Capabilities, socket: zmq.asyncio.Socket) -> None:
        if self.capabilities is not None and capabilities.revision != self.capabilities.revision:
            # What waits was checked against, and would be answered as, the model of the engine before.
            self._flights.lose(EngineLost("the model has changed while it slept", retry_after=1.0))
        self.capabilities, self._socket = capabilities, socket
        self._ready_since = clock.now()
        self._start_seconds = self._ready_since - self._engine.started
        self._coldstart.once("engine_ready", since="assembled")
        self._metrics.ready.set(1)
        log.info("ready", seconds=round(self._start_seconds, 3), revision=capabilities.revision)
        for flight in self._flights:
            self._hand_over(flight)
        self._occupied()

    def _receive(self, message: messages.FromEngine, buffers: Sequence[zmq.Frame]) -> None:
        match message:
            case messages.Marked(mark):
                self._coldstart.engine_marked(mark)
            case messages.Failed(reason):
                self._failure = reason
            case messages.Stepped(stage, rows, seconds):
                self._metrics.stepped(stage, rows, seconds)
            case messages.Accepted(id):
                self._flights.deliver(id, message)
            case messages.Progressed(id, step, steps, height, width):
                previews = [_pixels(frame, height, width) for frame in buffers]
                self._flights.deliver(id, Progress(step, steps, previews))
            case messages.Finished(id, seeds, timing):
                self._finished(id, seeds, timing, buffers)
            case messages.Ended(id, record):
                self._flights.deliver(id, record.problem(), last=True)

    def _finished(self, id: str, seeds: tuple[int, ...], timing: messages.Timing, buffers: Sequence[zmq.Frame]) -> None:
        images = len(buffers)
        flight = self._flights.find(id)
        if flight is not None:
            waited = max(0.0, self._ready_since - flight.since)
            timing = msgspec.structs.replace(timing, queue=waited + timing.queue)
        self._metrics.queue_seconds.observe(timing.queue)
        self._metrics.gpu_seconds.inc(timing.gpu)
        self._metrics.images.inc(images)
        recent = timing.gpu / max(1, images)
        self._image_seconds = 0.8 * self._image_seconds + 0.2 * recent if self._image_seconds else recent
        self._coldstart.once("first_image", since="first_request")
        self.cold = False
        if flight is not None:
            request = flight.order.request
            pixels = [_pixels(frame, request.height, request.width) for frame in buffers]
            self._flights.deliver(id, Pictures(pixels, seeds, timing), last=True)

    def _send(self, message: messages.FromServer) -> None:
        if self._socket is not None:
            self._socket.send_multipart([messages.encode(message)])

    def _restart_seconds(self) -> float:
        return max(1.0, self._start_seconds)


def _pixels(frame: zmq.Frame, height: int, width: int) -> np.ndarray:
    return np.frombuffer(frame.buffer, np.uint8).reshape(height, width, 3)
