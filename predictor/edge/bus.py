"""What happens to generations while they run, told at once to whoever follows.

The database has the truth; the bus only says it sooner, and may lose what it says. A topic is a generation's id.
"""

import asyncio
import re
import time
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Protocol

import msgspec

KEPT = 256  # latest events of a topic
QUIET = 600.0  # seconds after a topic's last event until it is forgotten
CLOSED = 60.0  # the same, after it was closed
SILENCE = 1.0  # seconds without an event that a follower is told of

_ID = re.compile(r"([0-9]{1,20})-([0-9]{1,20})")


class Event(msgspec.Struct, frozen=True):
    """One event. Ids are Redis's: milliseconds since the epoch, a hyphen, and a number within the millisecond."""

    id: str
    name: str
    data: bytes  # JSON


class Bus(Protocol):
    """From publishers to followers."""

    async def publish(self, topic: str, name: str, data: object) -> None:
        """Tell everybody who follows the topic; never fails. `data` is anything that msgspec makes JSON of."""
        ...

    def follow(self, topic: str, after: str | None) -> AsyncGenerator[Event | None, None]:
        """The topic's events, from the first that is kept or the one that follows the id `after`, as they come.

        None comes whenever a second passed without an event: time to look into the database. It ends only when the bus
        does; close it (`contextlib.aclosing`) to leave earlier. An id that no bus has given is taken for none.
        """
        ...

    async def close(self, topic: str) -> None:
        """No more comes; followers may still read what there is, for a minute."""
        ...

    async def aclose(self) -> None:
        """End the bus: every follower's iteration ends."""
        ...


class MemoryBus:
    """Of one process."""

    def __init__(self) -> None:
        self._rings: dict[str, Ring] = {}
        self._ends: dict[str, asyncio.TimerHandle] = {}
        self._latest = 0, 0
        self._over = False

    def __len__(self) -> int:
        """Topics that are kept."""
        return len(self._rings)

    async def publish(self, topic: str, name: str, data: object) -> None:
        """As `Bus` says."""
        now = time.time_ns() // 1_000_000
        milliseconds, number = self._latest
        self._latest = (now, 0) if now > milliseconds else (milliseconds, number + 1)
        self._ring(topic).add(Event("{}-{}".format(*self._latest), name, msgspec.json.encode(data)))
        self._forget_in(topic, QUIET)

    async def follow(self, topic: str, after: str | None) -> AsyncGenerator[Event | None, None]:
        """As `Bus` says."""
        if self._over:
            return
        ring = self._ring(topic)
        with ring:
            try:
                async with aclosing(ring.events(after)) as events:
                    async for event in events:
                        yield event
            finally:
                if not len(ring) and ring.followers == 1:
                    self._rings.pop(topic, None)

    async def close(self, topic: str) -> None:
        """As `Bus` says."""
        if topic in self._rings:
            self._forget_in(topic, CLOSED)

    async def aclose(self) -> None:
        """As `Bus` says."""
        self._over = True
        for end in self._ends.values():
            end.cancel()
        for ring in self._rings.values():
            ring.end()

    def _ring(self, topic: str) -> "Ring":
        return self._rings.setdefault(topic, Ring())

    def _forget_in(self, topic: str, seconds: float) -> None:
        if topic in self._ends:
            self._ends[topic].cancel()
        self._ends[topic] = asyncio.get_running_loop().call_later(seconds, self._forget, topic)

    def _forget(self, topic: str) -> None:
        if self._rings[topic].followers:
            self._forget_in(topic, CLOSED)
        else:
            del self._rings[topic], self._ends[topic]


class Ring:
    """The latest events of a topic. Used as a context, it counts who follows it."""

    def __init__(self) -> None:
        self._events: deque[Event] = deque(maxlen=KEPT)
        self._added = 0  # also those that are no longer kept
        self._news = asyncio.Event()
        self._ended = False
        self.followers = 0

    def __len__(self) -> int:
        return len(self._events)

    def __enter__(self) -> None:
        self.followers += 1

    def __exit__(self, *_: object) -> None:
        self.followers -= 1

    @property
    def latest(self) -> str | None:
        """Id of the latest event."""
        return self._events[-1].id if self._events else None

    def add(self, event: Event) -> None:
        """Add the next event and wake who waits for it."""
        self._events.append(event)
        self._added += 1
        self._tell()

    def end(self) -> None:
        """No more comes: every iteration of `events` ends."""
        self._ended = True
        self._tell()

    async def events(self, after: str | None) -> AsyncGenerator[Event | None, None]:
        """Events later than the id `after`, and None for every second without one."""
        seen, skipped = 0, position(after)
        while not self._ended:
            while seen < self._added:
                seen = max(seen, self._added - len(self._events))  # a slow follower misses what was dropped
                event = self._events[seen - self._added]
                seen += 1
                if position(event.id) > skipped:
                    yield event
            news = self._news
            if seen < self._added or self._ended:
                continue
            try:
                async with asyncio.timeout(SILENCE):
                    await news.wait()
            except TimeoutError:
                yield None

    def _tell(self) -> None:
        # Each waits for one event of its own time, so that nobody has to say that it has heard.
        news, self._news = self._news, asyncio.Event()
        news.set()


def position(id: str | None) -> tuple[int, int]:
    """An event's id as numbers, which compare as the events came; (-1, -1) for None and for what is no such id."""
    found = _ID.fullmatch(id or "")
    return (int(found[1]), int(found[2])) if found else (-1, -1)
