"""Two deployments in one interleaved run: which is faster, how much, and whether that can be believed; pure."""

from typing import Literal

import msgspec
import numpy as np

from loadtest.quantiles import LEVEL, Latencies

Verdict = Literal["a is faster", "b is faster", "no difference seen", "undecided"]


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """A quantile of both. `ratio` is b's over a's, with its 95 % interval: above 1, a is faster."""

    name: str
    a: float
    b: float
    ratio: float
    low: float
    high: float
    verdict: Verdict


def compare(name: str, share: float, a: Latencies, b: Latencies) -> Comparison:
    """Compare one quantile.

    The interval is the bootstrap's of the ratio, both sides resampled independently. `undecided`: one of the quantiles
    is censored, so that nobody knows the ratio.
    """
    one, other = a.quantile(share), b.quantile(share)
    chance = np.random.default_rng(0)
    draws = b.resampled(share, chance) / np.maximum(a.resampled(share, chance), 1e-9)
    tail = (1 - LEVEL) / 2
    low, high = (float(value) for value in np.quantile(draws, [tail, 1 - tail]))
    verdict: Verdict
    if a.estimate(share).at_least or b.estimate(share).at_least:
        verdict = "undecided"
    elif low > 1:
        verdict = "a is faster"
    elif high < 1:
        verdict = "b is faster"
    else:
        verdict = "no difference seen"
    return Comparison(name=name, a=one, b=other, ratio=other / max(one, 1e-9), low=low, high=high, verdict=verdict)
