"""What the activator reports of one revision to the autoscaler: requests in flight, or that came, by the second."""

from typing import Literal


class Meter:
    """Counts one second after the other; `in_flight` includes requests that wait."""

    __slots__ = ("_area", "_at", "_metric", "_reported", "_requests", "in_flight", "known")

    def __init__(self, metric: Literal["concurrency", "rps"]) -> None:
        self.in_flight = 0
        self.known = False  # the activator counts this revision
        self._metric = metric
        self._area = 0.0  # ∫ in_flight dt of this second
        self._at = 0.0
        self._requests = 0  # of this second
        self._reported = 0.0  # of this second, ahead of its end

    def count(self, now: float, change: int) -> None:
        """So many requests more, or fewer, are in flight."""
        self._area += self.in_flight * (now - self._at)
        self._at = now
        self.in_flight += change

    def arrive(self, now: float) -> bool:
        """A request has come; returns whether it is the first, reported at once and taken off the second's report."""
        self.count(now, 1)
        self._requests += 1
        if self.known:
            return False
        self.known, self._reported = True, 1.0
        return True

    def close(self, now: float) -> tuple[float, bool]:
        """End this second: returns what is still to be reported of it, and whether any request was in flight."""
        self.count(now, 0)
        measured, busy = float(self._requests) if self._metric == "rps" else self._area, self._area > 0
        left = max(0.0, measured - self._reported)
        self._area, self._reported, self._requests = 0.0, 0.0, 0
        return left, busy
