"""Exact percentiles of raw latencies, with their uncertainty; pure.

A percentile is a sample (nearest rank), never an interpolation or a bucket. A request that its client gave up is
*censored*: its latency is longer than what was seen. It ranks above all others, and a percentile that falls on one is
known only to be at least that long.

Intervals are the bootstrap's, without resampling: the k-th smallest of n draws with replacement is the sample of rank
⌈n·B⌉ with B ~ Beta(k, n-k+1), for the k-th smallest of n uniform numbers has that distribution (Efron and Tibshirani
1993, section 13.3, percentile interval; Maritz and Jarrett 1978 for quantiles).

Requests of one cycle share its cold start and are no independent samples: where cycles are given, whole cycles are
drawn with replacement instead (the cluster bootstrap; Davison and Hinkley 1997, section 3.8), and sixteen requests in
each of ten cycles count as ten, not as 160.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

LEVEL: Final = 0.95  # of every interval
DRAWS: Final = 20_000
_NORMAL: Final = 2000  # samples from which on the mean of resamples is normal for all that anybody can see
_Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A figure and its 95 % interval, in the samples' unit (seconds)."""

    value: float
    low: float
    high: float
    count: int
    at_least: bool = False  # the figure falls on a censored sample: the truth is this or more
    high_at_least: bool = False  # likewise for the interval's upper end
    bounded: bool = True  # False: too few samples for an upper end; `high` is merely the largest one

    @property
    def width(self) -> float:
        """Of the interval."""
        return self.high - self.low


@dataclass(frozen=True)
class Latencies:
    """Seconds in rising order, the censored ones behind all others; at least one."""

    seconds: _Floats
    censored: int = 0  # how many of the last ones are
    cycles: npt.NDArray[np.int64] | None = None  # of each, from 0; None: all are independent

    @classmethod
    def of(
        cls, seconds: Sequence[float], censored: Sequence[float] = (), cycles: Sequence[int] | None = None
    ) -> "Latencies":
        """Sort both kinds.

        Args:
            seconds: of those that were answered.
            censored: of those that were given up.
            cycles: of all of them in this order, where those of one cycle depend on each other.

        Raises:
            ValueError: there is none, or one is no finite number.
        """
        known, cut = np.array(seconds, float), np.array(censored, float)
        both = np.concatenate([known, cut])
        if not len(both):
            raise ValueError("no latencies")
        if not np.isfinite(both).all():
            raise ValueError(f"latencies: got {both[~np.isfinite(both)][0]}; allowed: finite seconds")
        order = np.concatenate([np.argsort(known), len(known) + np.argsort(cut)])
        if cycles is None or len(set(cycles)) == len(cycles):
            return cls(both[order], len(cut))
        numbered = np.unique(np.array(cycles), return_inverse=True)[1].astype(np.int64)
        return cls(both[order], len(cut), numbered[order])

    def __len__(self) -> int:
        return len(self.seconds)

    @property
    def independent(self) -> int:
        """How many independent samples there are."""
        return len(self) if self.cycles is None else int(self.cycles.max()) + 1

    def quantile(self, share: float) -> float:
        """The smallest sample that at least `share` (0 to 1) of the samples do not exceed."""
        return float(self.seconds[rank(len(self), share) - 1])

    def estimate(self, share: float) -> Estimate:
        """The quantile with its interval."""
        count, k = len(self), rank(len(self), share)
        if self.cycles is None:
            low, high = interval_ranks(count, k)
        else:
            low, high = _ends(self._cycle_ranks(share, np.random.default_rng(0), DRAWS // 10))
        return Estimate(
            value=float(self.seconds[k - 1]),
            low=float(self.seconds[low - 1]),
            high=float(self.seconds[high - 1]),
            count=count,
            at_least=k > count - self.censored,
            high_at_least=high > count - self.censored,
            # The largest of n samples is above the quantile with probability 1 - share^n; no interval can do more.
            bounded=share == 0 or (share < 1 and self.independent * math.log(share) <= math.log((1 - LEVEL) / 2)),
        )

    def mean(self) -> Estimate:
        """The mean with its bootstrap interval; with censored samples it is a lower bound."""
        count = len(self)
        chance = np.random.default_rng(0)
        if self.cycles is not None:
            drawn = self._drawn_cycles(chance, DRAWS // 10)
            sums = np.bincount(self.cycles, self.seconds)
            means = drawn @ sums / (drawn @ np.bincount(self.cycles))
        elif count > _NORMAL:
            means = chance.normal(self.seconds.mean(), self.seconds.std() / math.sqrt(count), DRAWS)
        else:
            means = self.seconds[chance.integers(count, size=(DRAWS // 10, count))].mean(axis=1)
        low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        cut = self.censored > 0
        return Estimate(float(self.seconds.mean()), float(low), float(high), count, at_least=cut, high_at_least=cut)

    def resampled(self, share: float, chance: np.random.Generator, draws: int = DRAWS // 4) -> _Floats:
        """The quantile of `draws` bootstrap samples."""
        if self.cycles is None:
            return self.seconds[_ranks(len(self), rank(len(self), share), chance, draws) - 1]
        return self.seconds[self._cycle_ranks(share, chance, draws) - 1]

    def _drawn_cycles(self, chance: np.random.Generator, draws: int) -> npt.NDArray[np.int64]:
        """How often each cycle is in each bootstrap sample."""
        return chance.multinomial(self.independent, np.full(self.independent, 1 / self.independent), draws)

    def _cycle_ranks(self, share: float, chance: np.random.Generator, draws: int) -> npt.NDArray[np.int64]:
        assert self.cycles is not None
        found = []
        for drawn in self._drawn_cycles(chance, draws):
            below = np.cumsum(drawn[self.cycles])
            found.append(np.searchsorted(below, rank(int(below[-1]), share)) + 1)
        return np.array(found)


def rank(count: int, share: float) -> int:
    """From 1: the nearest rank of a share of `count` samples."""
    if not 0 <= share <= 1:
        raise ValueError(f"share: got {share}; allowed: 0 to 1")
    return max(1, math.ceil(count * share - 1e-9))


def interval_ranks(count: int, k: int) -> tuple[int, int]:
    """Ranks of the ends of the 95 % interval of the k-th smallest of `count`."""
    return _ends(_ranks(count, k, np.random.default_rng(0), DRAWS))


def cycles_needed(pilot: Latencies, share: float, width: float, most: int = 100_000) -> int | None:
    """How many samples like the pilot's make the quantile's interval at most `width` wide; None if `most` do not.

    The pilot stands for the whole distribution, so the answer is no better than the pilot is long.
    """
    if not width > 0:
        raise ValueError(f"width: got {width}; allowed: above 0 s")

    def wide(count: int) -> float:
        low, high = interval_ranks(count, rank(count, share))
        return pilot.quantile(high / count) - pilot.quantile(low / count)

    count = 2
    while wide(count) > width:
        count *= 2
        if count > most:
            return None
    low, high = count // 2, count
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if wide(middle) <= width else (middle, high)
    return high


def _ranks(count: int, k: int, chance: np.random.Generator, draws: int) -> npt.NDArray[np.int64]:
    ranks = np.ceil(count * chance.beta(k, count - k + 1, draws)).astype(np.int64)
    return np.clip(ranks, 1, count)


def _ends(ranks: npt.NDArray[np.int64]) -> tuple[int, int]:
    ordered, tail = np.sort(ranks), (1 - LEVEL) / 2
    return int(ordered[int(tail * len(ordered))]), int(ordered[math.ceil((1 - tail) * len(ordered)) - 1])
