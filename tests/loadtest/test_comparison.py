"""Verdicts between two deployments."""

import numpy as np
import pytest

from loadtest.comparison import compare
from loadtest.quantiles import Latencies


def drawn(seed: int, count: int = 40, scale: float = 1.0) -> Latencies:
    return Latencies.of((scale * np.random.default_rng(seed).lognormal(1.0, 0.3, count)).tolist())


def test_twice_as_slow_is_found():
    found = compare("cold.p50", 0.5, drawn(1), drawn(2, scale=2.0))
    assert found.verdict == "a is faster"
    assert 1 < found.low < found.ratio < found.high
    assert compare("cold.p50", 0.5, drawn(2, scale=2.0), drawn(1)).verdict == "b is faster"


def test_the_same_service_twice_is_rarely_called_different():
    wrong = sum(compare("x", 0.5, drawn(n), drawn(1000 + n)).verdict != "no difference seen" for n in range(60))
    assert wrong <= 8


def test_nobody_knows_the_ratio_of_what_was_given_up():
    cut = Latencies.of([1.0], [2.0, 2.0])
    assert compare("x", 0.5, drawn(1), cut).verdict == "undecided"


@pytest.mark.parametrize("share", [0.5, 0.95])
def test_swapping_the_sides_turns_the_ratio_over(share):
    one, other = compare("x", share, drawn(1), drawn(2)), compare("x", share, drawn(2), drawn(1))
    assert one.ratio == pytest.approx(1 / other.ratio)
