"""When an engine that nobody needs ends, and when another is started.

The server stays ready meanwhile, and so does the pod: what sleeps is the engine's process, and with it the memory and
the context that it holds on the device. All of this runs on the server's event loop, so between the decision to end an
engine and the first request that is kept back from it there is no moment in which one could be sent.
"""

import asyncio
from collections.abc import Callable

import structlog

from predictor import clock
from predictor.server.metrics import Metrics

log = structlog.get_logger("sdzero.server")


class Sleep:
    """One per server, through all lives of its engine.

    Args:
        after: idle seconds after which it begins; 0 is never.
        end: ends the engine.

    Attributes:
        begun: the present engine's end is meant.
    """

    def __init__(self, after: float, end: Callable[[], None], metrics: Metrics) -> None:
        self.begun = False
        self._after = after
        self._end = end
        self._metrics = metrics
        self._timer: asyncio.TimerHandle | None = None
        self._wanted = asyncio.Event()

    def allow(self) -> None:
        """The engine is ready and nobody needs it, from now on."""
        self.forbid()
        self._wanted.clear()
        if self._after:
            self._timer = asyncio.get_running_loop().call_later(self._after, self._begin)

    def forbid(self) -> None:
        """Somebody needs an engine, or it has died, or the server ends."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._wanted.set()

    async def over(self) -> float:
        """Wait, once the engine has gone, until one is wanted, or the end of the server; returns the seconds of it."""
        log.info("asleep", idle_seconds=self._after)
        self._metrics.asleep.set(1)
        began = clock.now()
        await self._wanted.wait()
        self._metrics.asleep.set(0)
        self.begun = False
        return clock.now() - began

    def _begin(self) -> None:
        self.begun = True
        self._end()
