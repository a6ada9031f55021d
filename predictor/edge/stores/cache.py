"""Finished results that may be given again, and the pictures they name. Whatever is not found here is found elsewhere.

A result's key is `SCOPE:FINGERPRINT`; a picture's is its name, which stands for its content.
"""

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Protocol

import msgspec

from predictor.core.jobs import Generation

_encoder = msgspec.msgpack.Encoder()
_generation = msgspec.msgpack.Decoder(Generation)


class ResultCache(Protocol):
    """A cache never fails: what it cannot tell is a miss, and what it cannot keep is not kept."""

    async def get(self, key: str) -> Generation | None:
        """The finished generation under `key`, if it ended less than the cache's seconds ago."""
        ...

    async def put(self, key: str, generation: Generation) -> None:
        """Keep a finished generation until its end is the cache's seconds ago."""
        ...

    async def image(self, name: str) -> bytes | None:
        """The picture's bytes."""
        ...

    async def put_image(self, name: str, content: bytes) -> None:
        """Keep a picture's bytes."""
        ...


class MemoryCache:
    """Of one process: at most `max_bytes` of keys and values; what was used longest ago goes first."""

    def __init__(self, max_bytes: int, seconds: float, clock: Callable[[], float] = time.time) -> None:
        self._max_bytes = max_bytes
        self._seconds = seconds
        self._clock = clock
        self._kept: OrderedDict[str, tuple[bytes, float]] = OrderedDict()  # value, and until when
        self.bytes = 0

    async def get(self, key: str) -> Generation | None:
        """As `ResultCache` says."""
        found = self._get(f"result:{key}")
        return None if found is None else _generation.decode(found)

    async def put(self, key: str, generation: Generation) -> None:
        """As `ResultCache` says."""
        self._put(f"result:{key}", _encoder.encode(generation), end(generation) + self._seconds)

    async def image(self, name: str) -> bytes | None:
        """As `ResultCache` says."""
        return self._get(f"image:{name}")

    async def put_image(self, name: str, content: bytes) -> None:
        """As `ResultCache` says."""
        self._put(f"image:{name}", content, self._clock() + self._seconds)

    def _get(self, key: str) -> bytes | None:
        if key not in self._kept:
            return None
        value, until = self._kept[key]
        if until <= self._clock():
            self._drop(key)
            return None
        self._kept.move_to_end(key)
        return value

    def _put(self, key: str, value: bytes, until: float) -> None:
        if key in self._kept:
            self._drop(key)
        size = _size(key, value)
        if until <= self._clock() or size > self._max_bytes:
            return
        while self.bytes + size > self._max_bytes:
            self._drop(next(iter(self._kept)))
        self._kept[key] = value, until
        self.bytes += size

    def _drop(self, key: str) -> None:
        value, _ = self._kept.pop(key)
        self.bytes -= _size(key, value)


def end(generation: Generation) -> float:
    """When it ended; only finished ones are kept."""
    assert generation.finished is not None, "only finished generations are kept"
    return generation.finished


def _size(key: str, value: bytes) -> int:
    return len(key.encode()) + len(value)
