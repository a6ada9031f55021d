"""Events that followers in every edge process see, through Redis Streams.

    publish ─► a stream for each topic: its events ──────────────────────────► XRANGE ─► ring ─► followers
           └─► one stream of notes: topics that have something new ─► XREAD ────┘

Each process blocks on the notes alone, with one connection, whatever the number of its followers and topics; a note
makes it fetch what is new of a topic, if somebody here follows it. Both streams are read on from the last id that was
seen, so that a connection that broke loses nothing.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import aclosing
from typing import Any

import msgspec
import structlog
from redis.exceptions import RedisError

from predictor.edge.bus import CLOSED, KEPT, QUIET, Event, Ring, position
from predictor.edge.redis.link import Away, RedisLink, connected

log = structlog.get_logger("sdzero.edge")

NOTES = "sdzero:notes"
EVENTS = "sdzero:events:"
NOTES_KEPT = 4096
BLOCK = 2.0  # seconds of one XREAD; ended earlier by a note
PAUSE = 1.0  # seconds before the reader tries again


class RedisBus:
    """One for each edge process, as `Bus` says; `failed` is called for every event that could not be told."""

    def __init__(self, link: RedisLink, failed: Callable[[], None]) -> None:
        self._link = link
        self._failed = failed
        self._notes = connected(link.url, 1, BLOCK + 1)
        self._rings: dict[str, Ring] = {}
        self._reader: asyncio.Task[None] | None = None
        self._over = False

    async def publish(self, topic: str, name: str, data: object) -> None:
        """As `Bus` says. Without Redis nobody is told, here neither."""
        key = EVENTS + topic
        try:
            async with self._link.asking() as redis, redis.pipeline(transaction=True) as pipeline:
                pipeline.xadd(key, {"name": name, "data": msgspec.json.encode(data)}, maxlen=KEPT)
                pipeline.expire(key, int(QUIET))
                pipeline.xadd(NOTES, {"topic": topic}, maxlen=NOTES_KEPT)
                pipeline.expire(NOTES, int(QUIET))
                await pipeline.execute()
        except Away:
            self._failed()

    async def follow(self, topic: str, after: str | None) -> AsyncGenerator[Event | None, None]:
        """As `Bus` says."""
        if self._over:
            return
        ring = self._rings.setdefault(topic, Ring())
        with ring:
            try:
                self._read()
                if not len(ring):
                    await self._look(topic)
                async with aclosing(ring.events(after)) as events:
                    async for event in events:
                        yield event
            finally:
                if ring.followers == 1:
                    del self._rings[topic]

    async def close(self, topic: str) -> None:
        """As `Bus` says."""
        try:
            async with self._link.asking() as redis:
                await redis.expire(EVENTS + topic, int(CLOSED))
        except Away:
            self._failed()

    async def aclose(self) -> None:
        """As `Bus` says; the link stays open."""
        self._over = True
        for ring in self._rings.values():
            ring.end()
        while self._reader is not None and not self._reader.done():
            # Again and again, because redis-py drops a cancellation that comes while it connects.
            self._reader.cancel()
            await asyncio.wait([self._reader], timeout=0.05)
        await self._notes.aclose()

    def _read(self) -> None:
        if self._reader is None or self._reader.done():
            self._reader = asyncio.create_task(self._read_notes())

    async def _read_notes(self) -> None:
        """Read notes for as long as anybody follows anything."""
        seen: bytes | None = None
        while self._rings and not self._over:
            try:
                if seen is None:
                    # After this moment every note is seen; what was said before it is fetched without one.
                    newest: Any = await self._notes.xrevrange(NOTES, count=1)
                    seen = newest[0][0] if newest else b"0-0"
                    await self._fetch(list(self._rings))
                streams: Any = await self._notes.xread({NOTES: seen}, block=int(BLOCK * 1000))
                for _, notes in streams:
                    seen = notes[-1][0]
                    await self._fetch({fields[b"topic"].decode() for _, fields in notes})
            except (Away, RedisError, OSError) as error:
                log.warning("events are not heard", cause=type(error).__name__, said=str(error))
                # Its ids may start again elsewhere, when another Redis takes its place.
                seen = None
                await asyncio.sleep(PAUSE)

    async def _look(self, topic: str) -> None:
        """What a follower finds when it comes; without Redis, nothing, and the reader makes up for it later."""
        try:
            await self._fetch([topic])
        except Away:
            self._failed()

    async def _fetch(self, topics: Iterable[str]) -> None:
        """Put what is new of the topics, as far as they are followed, into their rings."""
        rings = {topic: self._rings[topic] for topic in topics if topic in self._rings}
        if not rings:
            return
        async with self._link.asking() as redis, redis.pipeline(transaction=False) as pipeline:
            for topic, ring in rings.items():
                pipeline.xrange(EVENTS + topic, min=f"({ring.latest}" if ring.latest else "-")
            found = await pipeline.execute()
        for ring, entries in zip(rings.values(), found, strict=True):
            for id, fields in entries:
                # A follower and the reader may have fetched the same.
                if position(id.decode()) > position(ring.latest):
                    ring.add(Event(id.decode(), fields[b"name"].decode(), fields[b"data"]))
