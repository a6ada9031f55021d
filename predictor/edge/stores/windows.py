"""Moving windows: how much was spent in the last so many seconds.

What is spent is kept by grains of time, a 600th of the window, so that a window takes no more room however often or
however much is spent. A grain leaves the window when the last moment of it does: in no window, wherever it begins, is
more spent than the limit, and what was spent is free again at most one grain late.

Packages that count one entry for every unit (the moving window of `limits`) hold a million entries for a limit of a
thousand megapixel-steps in thousandths, and cannot give back.
"""

import time
from typing import Protocol

GRAINS = 600  # of one window

Grains = dict[int, int]  # what was spent, by number of the grain since the clock's zero


class Away(Exception):
    """Whoever keeps the windows does not answer."""


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

    async def wait(self, key: str, cost: int, limit: int, seconds: int, now: float | None = None) -> float:
        """What `spend` would return; nothing is spent."""
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
            grain = moment // grain_of(seconds)
            grains[grain] = grains.get(grain, 0) + cost
        return wait / 1e6

    async def wait(self, key: str, cost: int, limit: int, seconds: int, now: float | None = None) -> float:
        """As `Windows` says."""
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


def _moment(now: float | None) -> int:
    """Microseconds."""
    return round((time.monotonic() if now is None else now) * 1e6)


def grain_of(seconds: int) -> int:
    """Microseconds."""
    return seconds * 1_000_000 // GRAINS


def _leaves(grain: int, seconds: int) -> int:
    """The microsecond at which nothing of the grain is in the window any more."""
    return (grain + 1) * grain_of(seconds) + seconds * 1_000_000
