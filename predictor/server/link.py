"""The server's end of the line to its engine: requests out, progress and pictures in, and what happens when it dies."""

import asyncio
import contextlib
import itertools
import threading
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass

import numpy as np
import structlog
import zmq
import zmq.asyncio

from predictor import clock
from predictor.core import messages
from predictor.core.problems import DeadlineExceeded, EngineLost, NotReady, Problem, QueueFull
from predictor.core.request import Capabilities, GenerationRequest
from predictor.server.coldstart import ColdStart
from predictor.server.metrics import Metrics
from predictor.server.process import EngineProcess
from predictor.settings import ServerSettings

LAST_WORDS = 0.1  # seconds in which what an engine sent before its death still arrives
LATE = 2.0  # seconds that a deadline's own answer may take; an engine that hangs gives none
PATIENCE = 2.0  # seconds for an engine to end when asked, or for its last message to arrive
log = structlog.get_logger("sdzero.server")


@dataclass(frozen=True)
class Progress:
    """`step` of `steps` is done; `previews` holds uint8 [height, width, 3] per image where they were asked for."""

    step: int
    steps: int
    previews: list[np.ndarray]


@dataclass(frozen=True)
class Pictures:
    """The result: uint8 [height, width, 3] per image, over the received frames' own memory."""

    pixels: list[np.ndarray]
    seeds: tuple[int, ...]
    timing: messages.Timing


Update = messages.Accepted | Progress | Pictures


@dataclass(frozen=True)
class _Flight:
    inbox: asyncio.Queue[Update | Problem]
    request: GenerationRequest


class EngineLink:
    """Keeps an engine alive and speaks with it.

    Args:
        engine: the one that is already starting.
        respawn: starts another when it has died.
    """

    def __init__(
        self,
        settings: ServerSettings,
        engine: EngineProcess,
        respawn: Callable[[], EngineProcess],
        coldstart: ColdStart,
        metrics: Metrics,
    ) -> None:
        self.capabilities: Capabilities | None = None  # None while no engine is ready
        self.cold = True  # until the present engine has made its first picture
        self._settings = settings
        self._engine = engine
        self._respawn = respawn
        self._coldstart = coldstart
        self._metrics = metrics
        self._flights: dict[str, _Flight] = {}
        self._names = map(str, itertools.count(1))
        self._socket: zmq.asyncio.Socket | None = None
        self._failure: str | None = None
        self._stopping = False
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
                self._lose(
                    EngineLost("the engine ended while it held the request", retry_after=self._restart_seconds())
                )
                if self._stopping:
                    return None
                if self._failure is not None:
                    return self._failure
                deaths = 0 if was_ready else deaths + 1
                log.error("engine died", exit_code=code, was_ready=was_ready, deaths_while_starting=deaths)
                if deaths > self._settings.engine_restarts:
                    return f"the engine ended {deaths} times in a row before it was ready, last with exit code {code}"
                self._engine = self._respawn()
                self._metrics.engine_restarts.inc()
                self._coldstart.engine_started()

    async def generate(
        self, request: GenerationRequest, *, progress: bool = False, previews: bool = False
    ) -> AsyncGenerator[Update, None]:
        """Accepted, Progress where asked for, then Pictures; close the iterator early to cancel the request.

        Raises:
            NotReady, QueueFull: at once.
            Problem: what the engine ended the request with.
            EngineLost: the engine died.
        """
        self._admit(request)
        name = next(self._names)
        flight = self._flights[name] = _Flight(asyncio.Queue(), request)
        self._count()
        deadline = clock.now() + self._settings.timeout_seconds
        self._send(messages.Generate(name, request, deadline, progress or previews, previews))
        try:
            while True:
                update = await _before(deadline + LATE, flight.inbox)
                if isinstance(update, Problem):
                    raise update
                yield update
                if isinstance(update, Pictures):
                    return
        finally:
            if self._flights.pop(name, None) is not None:
                self._send(messages.Cancel(name))
                self._count()

    def not_ready(self) -> NotReady:
        """What a request gets while no engine is ready."""
        remaining = self._restart_seconds() - (clock.now() - self._engine.started)
        phase = self._coldstart.phase
        return NotReady(f"the model is loading; finished so far: {phase}", retry_after=max(1.0, remaining))

    def abandon(self, problem: Problem) -> None:
        """End every request with `problem` and tell the engine."""
        for name in self._flights:
            self._send(messages.Cancel(name))
        self._lose(problem)

    def stop(self) -> None:
        """End the engine, and then `run`."""
        self._stopping = True
        self._engine.popen.terminate()
        asyncio.get_running_loop().call_later(PATIENCE, self._engine.popen.kill)

    def kill(self) -> None:
        """End the engine outside of an event loop; nothing happens if it has ended."""
        self._engine.stop(PATIENCE)

    def _admit(self, request: GenerationRequest) -> None:
        if self.capabilities is None:
            raise self.not_ready()
        waiting, allowed = self._images(), self._settings.queue_images
        excess = waiting + request.num_images - allowed
        # A request larger than the whole queue may still run alone.
        if waiting and excess > 0:
            raise QueueFull(
                f"queue: {waiting} images wait or run and {request.num_images} more were asked for; allowed: {allowed}",
                retry_after=max(1.0, excess * self._image_seconds),
            )

    async def _one_life(self, context: zmq.asyncio.Context) -> bool:
        """Listen to the present engine until it is dead; returns whether it ever was ready."""
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
            self._socket = socket
            reader = asyncio.create_task(self._read(socket))
            death = asyncio.create_task(died.wait())
            try:
                await asyncio.wait({reader, death}, return_when=asyncio.FIRST_COMPLETED)
                if reader.done() and self._failure is None:
                    log.error("engine spoke nonsense", exc_info=reader.exception())
                    engine.popen.kill()
                elif self._failure is not None:
                    loop.call_later(PATIENCE, engine.popen.kill)
                else:
                    # One that cannot start has said why, even if a busy machine brings it late.
                    spoke = engine.popen.returncode == messages.CANNOT_START
                    await asyncio.wait({reader}, timeout=PATIENCE if spoke else LAST_WORDS)
                was_ready = self.capabilities is not None
                self.capabilities, self.cold = None, True
                self._metrics.ready.set(0)
                await death
                return was_ready
            finally:
                self._socket = None
                for task in (reader, death):
                    task.cancel()
                await asyncio.gather(reader, death, return_exceptions=True)

    async def _read(self, socket: zmq.asyncio.Socket) -> None:
        while self._failure is None:
            head, *buffers = await socket.recv_multipart(copy=False)
            self._receive(messages.decode_from_engine(head.bytes), buffers)

    def _receive(self, message: messages.FromEngine, buffers: Sequence[zmq.Frame]) -> None:
        match message:
            case messages.Marked(mark):
                self._coldstart.engine_marked(mark)
            case messages.Ready(capabilities):
                self.capabilities = capabilities
                self._start_seconds = clock.now() - self._engine.started
                self._coldstart.once("engine_ready", since="assembled")
                self._metrics.ready.set(1)
                log.info("ready", seconds=round(self._start_seconds, 3), revision=capabilities.revision)
            case messages.Failed(reason):
                self._failure = reason
            case messages.Stepped(stage, rows, seconds):
                self._metrics.stepped(stage, rows, seconds)
            case messages.Accepted(id):
                self._deliver(id, message)
            case messages.Progressed(id, step, steps, height, width):
                self._deliver(id, Progress(step, steps, [_pixels(frame, height, width) for frame in buffers]))
            case messages.Finished(id, seeds, timing):
                self._finished(id, seeds, timing, buffers)
            case messages.Ended(id, record):
                self._deliver(id, record.problem(), last=True)

    def _finished(self, id: str, seeds: tuple[int, ...], timing: messages.Timing, buffers: Sequence[zmq.Frame]) -> None:
        images = len(buffers)
        self._metrics.queue_seconds.observe(timing.queue)
        self._metrics.gpu_seconds.inc(timing.gpu)
        self._metrics.images.inc(images)
        recent = timing.gpu / max(1, images)
        self._image_seconds = 0.8 * self._image_seconds + 0.2 * recent if self._image_seconds else recent
        self._coldstart.once("first_image", since="first_request")
        self.cold = False
        if (flight := self._flights.get(id)) is not None:
            request = flight.request
            pixels = [_pixels(frame, request.height, request.width) for frame in buffers]
            self._deliver(id, Pictures(pixels, seeds, timing), last=True)

    def _deliver(self, id: str, update: Update | Problem, last: bool = False) -> None:
        # A request that was cancelled here may still be answered; nobody waits for that.
        flight = self._flights.pop(id, None) if last else self._flights.get(id)
        if flight is not None:
            flight.inbox.put_nowait(update)
            self._count()

    def _lose(self, problem: Problem) -> None:
        for id in list(self._flights):
            self._deliver(id, problem, last=True)

    def _send(self, message: messages.FromServer) -> None:
        if self._socket is not None:
            self._socket.send_multipart([messages.encode(message)])

    def _images(self) -> int:
        return sum(flight.request.num_images for flight in self._flights.values())

    def _count(self) -> None:
        self._metrics.images_in_flight.set(self._images())

    def _restart_seconds(self) -> float:
        return max(1.0, self._start_seconds)


async def _before(deadline: float, inbox: asyncio.Queue[Update | Problem]) -> Update | Problem:
    try:
        # Not `wait_for`: that of Python 3.11 forgets a cancellation that comes together with the update.
        async with asyncio.timeout(deadline - clock.now()):
            return await inbox.get()
    except TimeoutError:
        raise DeadlineExceeded("the request's time ran out and the engine did not say so itself") from None


def _pixels(frame: zmq.Frame, height: int, width: int) -> np.ndarray:
    return np.frombuffer(frame.buffer, np.uint8).reshape(height, width, 3)
