"""From the open port to the exit: what SIGTERM and SIGINT do, and what an engine that gave up does.

    1. New requests get `Draining`, on open connections, on new ones and over gRPC; readiness is false.
    2. What runs finishes. What has not when the grace period is nearly over gets `Draining` too.
    3. The engine ends, and the signal goes on to uvicorn, which closes its connections and hands it to KServe,
       which ends gRPC.

uvicorn alone would refuse new connections at once, cancel what runs at the end, and let gRPC go on meanwhile.
"""

import asyncio
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import structlog

from predictor.asgi.journal import Journal
from predictor.core.problems import Draining
from predictor.server.coldstart import ColdStart
from predictor.server.link import EngineLink
from predictor.server.service import Service

SIGNALS = (signal.SIGTERM, signal.SIGINT)
log = structlog.get_logger("sdzero.server")


class Lifecycle:
    """One per process.

    Args:
        drain_seconds: how long running requests may go on after the first signal.
    """

    def __init__(
        self, link: EngineLink, service: Service, journal: Journal, coldstart: ColdStart, drain_seconds: float
    ) -> None:
        self.failure: str | None = None
        self._link = link
        self._service = service
        self._journal = journal
        self._coldstart = coldstart
        self._drain_seconds = drain_seconds
        self._ending = asyncio.Event()
        self._hurry = asyncio.Event()

    async def run(self) -> None:
        """Keep the engine alive until the end; an engine that gives up begins the end."""
        self.failure = await self._link.run()
        if self.failure is not None:
            log.error("engine gave up", reason=self.failure)
        self._ending.set()

    @asynccontextmanager
    async def lifespan(self, _: Any) -> AsyncIterator[None]:
        """The ASGI lifespan: uvicorn has taken the signals by now, so they can be taken from it.

        They are blocked until here (see `app.py`): KServe's own handlers fail before its loop runs.
        """
        loop = asyncio.get_running_loop()
        pass_on: Any = signal.getsignal(signal.SIGTERM)
        for number in SIGNALS:
            signal.signal(number, lambda *_: loop.call_soon_threadsafe(self._signalled))
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        self._coldstart.once("listening", since="assembled")
        ending = asyncio.create_task(self._end(pass_on))
        yield
        ending.cancel()

    def _signalled(self) -> None:
        if self._ending.is_set():
            self._hurry.set()
        self._ending.set()

    async def _end(self, pass_on: Callable[..., Any]) -> None:
        await self._ending.wait()
        self._service.draining = True
        log.info("draining", seconds=self._drain_seconds)
        idle, hurry = asyncio.create_task(self._journal.idle()), asyncio.create_task(self._hurry.wait())
        await asyncio.wait({idle, hurry}, timeout=self._drain_seconds, return_when=asyncio.FIRST_COMPLETED)
        hurry.cancel()
        if not idle.done():
            log.warning("abandoning what still runs")
            self._link.abandon(Draining("this server shut down before the request was done", retry_after=1.0))
            idle.cancel()
        if self.failure is None:
            self._link.stop()
        pass_on(signal.SIGTERM, None)
