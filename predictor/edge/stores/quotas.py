"""Quotas over moving windows: what a key spends in a minute, how often it wakes a GPU, how often an address guesses."""

import ipaddress
from collections.abc import Awaitable, Callable
from typing import Literal

from predictor.core.account import Caller
from predictor.core.problems import Forbidden, QuotaExceeded, StoreUnavailable, WakeRefused
from predictor.edge.stores.windows import Away, MemoryWindows, Windows

MINUTE, HOUR = 60, 3600  # seconds
UNITS = 1_000_000  # of a megapixel-step: a pixel denoised once, so that every cost is whole
GUESSES = 20  # failed authentications of one address in a minute
LONGEST_RETRY = 120.0  # seconds; OpenAI's SDKs give up on a longer Retry-After
Asking = Callable[[str, int, int, int, float | None], Awaitable[float]]  # Windows.spend or Windows.wait


class Quotas:
    """One for each edge process. Edges on one Redis share what keys spend; without Redis each process counts alone.

    Guessed keys are counted by each process even so. The check comes with every request, also with those that cost
    nothing, and it must neither take a way to Redis nor shut everybody out when Redis is away.
    """

    def __init__(self, windows: Windows, failure: Literal["closed", "open"], failed: Callable[[], None]) -> None:
        """Put the parts together.

        Args:
            windows: what was spent.
            failure: when the windows cannot be read, `closed` refuses and `open` lets pass.
            failed: called whenever they cannot be read.
        """
        self._windows = windows
        self._failure = failure
        self._failed = failed
        self._guesses = MemoryWindows()

    async def charge(self, caller: Caller, cost: float, now: float | None = None) -> None:
        """Spend `cost` megapixel-steps of the caller's minute.

        Raises:
            Forbidden: it costs more than the key may spend in a whole minute. That is not QuotaExceeded, which clients
                retry: waiting never helps.
            QuotaExceeded: too little is left; `retry_after` says when enough is, if the key spends nothing else.
            StoreUnavailable: the quotas cannot be read, and are set to refuse then.
        """
        limit, units = caller.limits.megapixel_steps_per_minute, _units(cost)
        if not limit or not units:
            return
        if units > limit * UNITS:
            raise Forbidden(
                f"megapixel_steps_per_minute: got a request of {cost:g}; allowed: {limit} in a minute, so that it can "
                "never pass; ask for fewer pixels, steps or images, or for a larger quota"
            )
        if wait := await self._asked(self._windows.spend, _purse(caller), units, limit * UNITS, MINUTE, now):
            raise QuotaExceeded(
                f"megapixel_steps_per_minute: got a request of {cost:g}; allowed: {limit} in a minute, of which too "
                f"little is left until {wait:.1f} s from now",
                retry_after=min(wait, LONGEST_RETRY),
            )

    async def refund(self, caller: Caller, cost: float) -> None:
        """Undo `charge`, for a request that spends nothing after all. Never fails: what is charged ends by itself."""
        if not caller.limits.megapixel_steps_per_minute or not _units(cost):
            return
        try:
            await self._windows.give_back(_purse(caller), _units(cost), MINUTE)
        except Away:
            self._failed()

    async def wake(self, caller: Caller, now: float | None = None) -> None:
        """Count one wake of a sleeping GPU.

        Raises:
            WakeRefused: the key has caused as many in the last hour as it may.
            StoreUnavailable: the quotas cannot be read, and are set to refuse then.
        """
        await self._wake(caller, self._windows.spend, now)

    async def may_wake(self, caller: Caller, now: float | None = None) -> None:
        """Raise what `wake` would raise; nothing is counted."""
        await self._wake(caller, self._windows.wait, now)

    async def guess(self, address: str, now: float | None = None) -> None:
        """Count one failed authentication from a client's address."""
        await self._guesses.spend(_network(address), 1, GUESSES, MINUTE, now)

    async def blocked(self, address: str, now: float | None = None) -> None:
        """Return if the address may try again.

        Raises:
            QuotaExceeded: it has failed too often within a minute.
        """
        if wait := await self._guesses.wait(_network(address), 1, GUESSES, MINUTE, now):
            raise QuotaExceeded(
                f"authorization: {GUESSES} keys from this address were wrong within a minute; allowed: the next in "
                f"{wait:.0f} s",
                retry_after=wait,
            )

    async def close(self) -> None:
        """Close connections."""
        await self._windows.close()

    async def _wake(self, caller: Caller, ask: Asking, now: float | None) -> None:
        limit = caller.limits.wakes_per_hour
        if limit and (wait := await self._asked(ask, f"wakes:{caller.key_id}", 1, limit, HOUR, now)):
            raise WakeRefused(
                f"wakes_per_hour: the GPU sleeps, and this key has woken it as often as it may; allowed: {limit} in an "
                f"hour, the next in {wait:.0f} s, or when another key has woken it",
                retry_after=min(wait, LONGEST_RETRY),
            )

    async def _asked(self, ask: Asking, key: str, cost: int, limit: int, seconds: int, now: float | None) -> float:
        try:
            return await ask(key, cost, limit, seconds, now)
        except Away as away:
            self._failed()
            if self._failure == "open":
                return 0.0
            raise StoreUnavailable("the quotas cannot be read", retry_after=2.0) from away


def _units(cost: float) -> int:
    return round(cost * UNITS)


def _purse(caller: Caller) -> str:
    return f"megapixel-steps:{caller.key_id}"


def _network(address: str) -> str:
    """Who guesses: an IPv4 address, or the /64 in which one host may take any IPv6 address it likes."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address  # a local socket
    if isinstance(parsed, ipaddress.IPv4Address):
        return address
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.IPv6Network((int(parsed) >> 64 << 64, 64)))
