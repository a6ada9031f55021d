"""Finished results and their pictures, in Redis."""

import time
from collections.abc import Callable

import msgspec

from predictor.core.jobs import Generation
from predictor.edge.redis.link import RedisLink
from predictor.edge.stores.cache import end
from predictor.edge.stores.windows import Away

PREFIX = "sdzero:cache:"

_encoder = msgspec.msgpack.Encoder()
_generation = msgspec.msgpack.Decoder(Generation)


class RedisCache:
    """Of every process that uses the Redis, which bounds it: `maxmemory` with the policy `volatile-lru`."""

    def __init__(
        self, link: RedisLink, seconds: float, failed: Callable[[], None], clock: Callable[[], float] = time.time
    ) -> None:
        """Say where it is; `failed` is called for every failure, each a miss."""
        self._link = link
        self._seconds = seconds
        self._failed = failed
        self._clock = clock

    async def get(self, key: str) -> Generation | None:
        """As `ResultCache` says."""
        found = await self._get(f"result:{key}")
        if found is None:
            return None
        try:
            return _generation.decode(found)
        except msgspec.DecodeError:
            self._failed()  # an edge of another version wrote it
            return None

    async def put(self, key: str, generation: Generation) -> None:
        """As `ResultCache` says."""
        await self._put(f"result:{key}", _encoder.encode(generation), end(generation) + self._seconds)

    async def image(self, name: str) -> bytes | None:
        """As `ResultCache` says."""
        return await self._get(f"image:{name}")

    async def put_image(self, name: str, content: bytes) -> None:
        """As `ResultCache` says."""
        await self._put(f"image:{name}", content, self._clock() + self._seconds)

    async def _get(self, key: str) -> bytes | None:
        try:
            async with self._link.asking() as redis:
                value = await redis.get(PREFIX + key)
        except Away:
            self._failed()
            return None
        assert value is None or isinstance(value, bytes)
        return value

    async def _put(self, key: str, value: bytes, until: float) -> None:
        milliseconds = int((until - self._clock()) * 1000)
        if milliseconds <= 0:
            return
        try:
            async with self._link.asking() as redis:
                await redis.set(PREFIX + key, value, px=milliseconds)
        except Away:
            self._failed()
