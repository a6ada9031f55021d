"""Moving windows: how much was spent in the last so many seconds.

What is spent is kept by grains of time, a 600th of the window, so that a window takes no more room however often or
however much is spent. A grain leaves the window when the last moment of it does: in no window, wherever it begins, is
more spent than the limit, and what was spent is free again at most one grain late.

Packages that count one entry for every unit (the moving window of `limits`) hold a million entries for a limit of a
thousand megapixel-steps in thousandths, and cannot give back.
"""

import time
from typing import Protocol

from predictor.edge.stores.redis_link import RedisLink

GRAINS = 600  # of one window
PREFIX = "sdzero:spent:"

Grains = dict[int, int]  # what was spent, by number of the grain since the clock's zero


class Windows(Protocol):
    """What was spent, by key and length of the window."""

    async def spend(self, key: str, cost: int, limit: int, seconds: int, now: float | None = None) -> float:
        """Spend `cost`, at most `limit`, or nothing.

        Args:
            key: whose window.
            cost: in whole units.
            limit: the most that may be spent in any window, in the same units.
            seconds: length of the window.
            now: seconds; by default by the store's own clock, which is one for all who share it.

        Returns:
            0.0 when it is spent; else the seconds after which it can be, if nobody else spends.
        """
        ...

    async def give_back(self, key: str, cost: int, seconds: int) -> None:
        """Undo spending `cost`, the latest first; nothing happens where nothing is spent."""
        ...

    async def close(self) -> None:
        """Close connections."""
        ...


class MemoryWindows:
    """Of one process."""

    def __init__(self) -> None:
        self._windows: dict[tuple[str, int], Grains] = {}
        self._swept = 0

    def __len__(self) -> int:
        """Windows that are kept."""
        return len(self._windows)

    async def spend(self, key: str, cost: int, limit: int, seconds: int, now: float | None = None) -> float:
        """As `Windows` says."""
        moment = _moment(now)
        self._sweep(moment)
        wait = self._wait(key, cost, limit, seconds, moment)
        if not wait:
            grains = self._windows.setdefault((key, seconds), {})
            grain = moment // _grain(seconds)
            grains[grain] = grains.get(grain, 0) + cost
        return wait / 1e6

    async def wait(self, key: str, cost: int, limit: int, seconds: int, now: float | None = None) -> float:
        """What `spend` would return; nothing is spent."""
        return self._wait(key, cost, limit, seconds, _moment(now)) / 1e6

    async def give_back(self, key: str, cost: int, seconds: int) -> None:
        """As `Windows` says."""
        grains = self._windows.get((key, seconds), {})
        for grain in sorted(grains, reverse=True):
            returned = min(cost, grains[grain])
            cost -= returned
            grains[grain] -= returned
            if not grains[grain]:
                del grains[grain]

    async def close(self) -> None:
        """Nothing is open."""

    def _wait(self, key: str, cost: int, limit: int, seconds: int, now: int) -> int:
        """Microseconds until `cost` can be spent; forgets what has left the window."""
        grains = self._windows.get((key, seconds), {})
        for grain in [grain for grain in grains if _leaves(grain, seconds) <= now]:
            del grains[grain]
        spent = sum(grains.values())
        wait = 0
        for grain in sorted(grains):
            if spent + cost <= limit:
                break
            spent -= grains[grain]
            wait = _leaves(grain, seconds) - now
        return wait

    def _sweep(self, now: int) -> None:
        """Once a minute, forget windows in which nothing is left."""
        if now < self._swept + 60_000_000:
            return
        self._swept = now
        for (key, seconds), grains in list(self._windows.items()):
            if all(_leaves(grain, seconds) <= now for grain in grains):
                del self._windows[key, seconds]


class RedisWindows:
    """Of every process that uses the Redis. A window is a hash of grains, and Redis's clock is the only one."""

    def __init__(self, link: RedisLink) -> None:
        self._link = link

    async def spend(self, key: str, cost: int, limit: int, seconds: int, now: float | None = None) -> float:
        """As `Windows` says.

        Raises:
            Away: Redis does not answer.
        """
        moment = "" if now is None else str(round(now * 1e6))
        arguments: list[int | str] = [cost, limit, seconds * 1_000_000, _grain(seconds), moment]
        async with self._link.asking() as redis:
            wait = await redis.register_script(SPEND)([_name(key, seconds)], arguments)
        return int(wait) / 1e6

    async def give_back(self, key: str, cost: int, seconds: int) -> None:
        """As `Windows` says.

        Raises:
            Away: Redis does not answer.
        """
        async with self._link.asking() as redis:
            await redis.register_script(GIVE_BACK)([_name(key, seconds)], [cost])

    async def close(self) -> None:
        """Close the link."""
        await self._link.close()


def _moment(now: float | None) -> int:
    """Microseconds."""
    return round((time.monotonic() if now is None else now) * 1e6)


def _grain(seconds: int) -> int:
    """Microseconds."""
    return seconds * 1_000_000 // GRAINS


def _leaves(grain: int, seconds: int) -> int:
    """The microsecond at which nothing of the grain is in the window any more."""
    return (grain + 1) * _grain(seconds) + seconds * 1_000_000


def _name(key: str, seconds: int) -> str:
    return f"{PREFIX}{seconds}:{key}"


# The two scripts do as MemoryWindows does; one property test holds both to it. Times are in microseconds.
SPEND = """
local cost, limit, window, grain = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local now = tonumber(ARGV[5])
if not now then
  local time = redis.call('TIME')
  now = tonumber(time[1]) * 1000000 + tonumber(time[2])
end
local entries = redis.call('HGETALL', KEYS[1])
local grains, spent = {}, 0
for i = 1, #entries, 2 do
  local leaves, amount = (tonumber(entries[i]) + 1) * grain + window, tonumber(entries[i + 1])
  if leaves <= now then
    redis.call('HDEL', KEYS[1], entries[i])
  else
    spent = spent + amount
    table.insert(grains, {leaves, amount})
  end
end
table.sort(grains, function(a, b) return a[1] < b[1] end)
local wait = 0
for _, entry in ipairs(grains) do
  if spent + cost <= limit then break end
  spent = spent - entry[2]
  wait = entry[1] - now
end
if wait == 0 then
  redis.call('HINCRBY', KEYS[1], string.format('%.0f', math.floor(now / grain)), ARGV[1])
  redis.call('PEXPIRE', KEYS[1], string.format('%.0f', math.ceil((window + grain) / 1000)))
end
return wait
"""

GIVE_BACK = """
local cost = tonumber(ARGV[1])
local entries = redis.call('HGETALL', KEYS[1])
local grains = {}
for i = 1, #entries, 2 do
  table.insert(grains, {tonumber(entries[i]), tonumber(entries[i + 1]), entries[i]})
end
table.sort(grains, function(a, b) return a[1] > b[1] end)
for _, entry in ipairs(grains) do
  if cost == 0 then break end
  local returned = math.min(cost, entry[2])
  cost = cost - returned
  if returned == entry[2] then
    redis.call('HDEL', KEYS[1], entry[3])
  else
    redis.call('HINCRBY', KEYS[1], entry[3], string.format('%.0f', -returned))
  end
end
"""
