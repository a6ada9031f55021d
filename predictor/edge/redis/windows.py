"""Moving windows in Redis."""

from predictor.edge.redis.link import RedisLink
from predictor.edge.stores.windows import grain_of

PREFIX = "sdzero:spent:"


class RedisWindows:
    """Of every process that uses the Redis. A window is a hash of grains, and Redis's clock is the only one."""

    def __init__(self, link: RedisLink) -> None:
        self._link = link

    async def spend(self, key: str, cost: int, limit: int, seconds: int, now: float | None = None) -> float:
        """As `Windows` says.

        Raises:
            Away: Redis does not answer.
        """
        return await self._asked("spend", key, cost, limit, seconds, now)

    async def wait(self, key: str, cost: int, limit: int, seconds: int, now: float | None = None) -> float:
        """As `Windows` says.

        Raises:
            Away: Redis does not answer.
        """
        return await self._asked("wait", key, cost, limit, seconds, now)

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

    async def _asked(self, verb: str, key: str, cost: int, limit: int, seconds: int, now: float | None) -> float:
        moment = "" if now is None else str(round(now * 1e6))
        arguments: list[int | str] = [cost, limit, seconds * 1_000_000, grain_of(seconds), moment, verb]
        async with self._link.asking() as redis:
            wait = await redis.register_script(SPEND)([_name(key, seconds)], arguments)
        return int(wait) / 1e6


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
if wait == 0 and ARGV[6] == 'spend' then
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
