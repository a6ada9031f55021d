"""Requests between their admission and the last that their callers hear of them."""

import asyncio
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from predictor import clock
from predictor.core import messages
from predictor.core.problems import Problem
from predictor.core.request import GenerationRequest


@dataclass(frozen=True)
class Progress:
    """`step` of `steps` is done; `previews` holds uint8 [height, width, 3] per image where they were asked for."""

    step: int
    steps: int
    previews: list[np.ndarray]


@dataclass(frozen=True)
class Pictures:
    """The result: uint8 [height, width, 3] per image, over the received frames' own memory.

    `timing.queue` counts from the admission, so the wait for an engine is in it.
    """

    pixels: list[np.ndarray]
    seeds: tuple[int, ...]
    timing: messages.Timing


Update = messages.Accepted | Progress | Pictures


@dataclass(frozen=True)
class Flight:
    """One request: what the engine is told of it, and what came of it so far."""

    order: messages.Generate
    since: float  # seconds since boot at which it was admitted
    inbox: asyncio.Queue[Update | Problem] = field(default_factory=asyncio.Queue)

    async def update(self, patience: float) -> Update | Problem:
        """The next one.

        Raises:
            TimeoutError: it has not come `patience` seconds after the deadline.
        """
        # Not `wait_for`: that of Python 3.11 forgets a cancellation that comes together with the update.
        async with asyncio.timeout(self.order.deadline + patience - clock.now()):
            return await self.inbox.get()


class Flights:
    """All of them, by id, oldest first.

    Args:
        changed: called when one has come or gone.
    """

    def __init__(self, changed: Callable[[], None]) -> None:
        self._changed = changed
        self._flights: dict[str, Flight] = {}
        self._ids = map(str, itertools.count(1))

    def __iter__(self) -> Iterator[Flight]:
        return iter(list(self._flights.values()))

    def __len__(self) -> int:
        return len(self._flights)

    @property
    def images(self) -> int:
        """How many pictures they are for."""
        return sum(flight.order.request.num_images for flight in self)

    def begin(self, request: GenerationRequest, seconds: float, *, progress: bool, previews: bool) -> Flight:
        """A new one, which has so many seconds."""
        id, now = next(self._ids), clock.now()
        flight = self._flights[id] = Flight(messages.Generate(id, request, now + seconds, progress, previews), now)
        self._changed()
        return flight

    def find(self, id: str) -> Flight | None:
        """None of a request that was taken back: the engine may still answer it, and nobody waits for that."""
        return self._flights.get(id)

    def end(self, id: str) -> bool:
        """Forget it; returns whether it was there."""
        found = self._flights.pop(id, None) is not None
        if found:
            self._changed()
        return found

    def deliver(self, id: str, update: Update | Problem, last: bool = False) -> None:
        """Put it into the inbox; nothing happens if nobody waits."""
        if (flight := self.find(id)) is not None:
            flight.inbox.put_nowait(update)
            if last:
                self.end(id)

    def lose(self, problem: Problem) -> None:
        """End each with `problem`."""
        for flight in self:
            self.deliver(flight.order.id, problem, last=True)
