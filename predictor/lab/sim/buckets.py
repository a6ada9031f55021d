"""What the autoscaler remembers: one value per second over a window, and its mean.

After knative/serving pkg/autoscaler/aggregation/bucketing.go and max/. Pure; times are whole seconds, ever later.
"""

import math
from collections import deque
from typing import Literal

Aggregation = Literal["linear", "weighted-exponential"]


class Window:
    """One-second buckets over `seconds`; what is recorded twice for one second adds up."""

    __slots__ = ("_buckets", "_first", "_last", "_total", "aggregation", "seconds")

    def __init__(self, seconds: int, aggregation: Aggregation = "linear") -> None:
        self.seconds = seconds
        self.aggregation = aggregation
        self._buckets = [0.0] * seconds
        self._total = 0.0
        self._first: int | None = None
        self._last = 0

    def record(self, second: int, value: float) -> None:
        """Add `value` to the bucket of `second`."""
        if self._first is None or second - self._last >= self.seconds:
            # Nothing is left of what was written before, so the mean is not thinned by the silence.
            self._buckets = [0.0] * self.seconds
            self._total = 0.0
            self._first = self._last = second
        for gone in range(self._last + 1, second + 1):
            place = gone % self.seconds
            self._total -= self._buckets[place]
            self._buckets[place] = 0.0
        self._last = second
        self._buckets[second % self.seconds] += value
        self._total += value

    def is_empty(self, second: int) -> bool:
        """Whether nothing was written for a whole window."""
        return self._first is None or second - self._last >= self.seconds

    def mean(self, second: int) -> float:
        """The average per second as of `second`; 0 once nothing was written for a whole window."""
        if self._first is None or self.is_empty(second):
            return 0.0
        silent = max(0, second - self._last)
        if self.aggregation == "weighted-exponential":
            return self._weighted(silent)
        total = self._total
        for gone in range(self._last + 1, second + 1):
            total -= self._buckets[gone % self.seconds]
        written = min(self._last - self._first + 1, self.seconds - silent)
        return round(total / written, 6)

    def _weighted(self, silent: int) -> float:
        smoothing = max(1 - (1 - 0.9999) ** (1 / self.seconds), 0.2)
        weighted: float = sum(
            self._buckets[(self._last - age) % self.seconds] * smoothing * (1 - smoothing) ** (silent + age)
            for age in range(self.seconds - silent)
        )
        return weighted


class LatestMaximum:
    """The largest value of the last `seconds`, in buckets of `granularity` seconds: how scaling down is delayed."""

    __slots__ = ("_kept", "granularity", "length")

    def __init__(self, seconds: float, granularity: float) -> None:
        self.granularity = granularity
        self.length = math.ceil(seconds / granularity)  # buckets
        self._kept: deque[tuple[int, int]] = deque()  # (bucket, value), values falling

    def record(self, now: float, value: int) -> int:
        """Remember `value`; returns the largest that is still remembered."""
        bucket = int(now // self.granularity)
        while self._kept and self._kept[0][0] <= bucket - self.length:
            self._kept.popleft()
        while self._kept and self._kept[-1][1] <= value:
            self._kept.pop()
        self._kept.append((bucket, value))
        return self._kept[0][1]
