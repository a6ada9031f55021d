import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from predictor.lab.bench.arrivals import burst, poisson


def test_a_burst_arrives_at_one_moment() -> None:
    assert burst(3) == [0.0, 0.0, 0.0]


@given(st.floats(0.01, 1000), st.integers(1, 200), st.integers(0, 2**32))
def test_poisson_arrivals_come_in_order_and_can_be_repeated(rate: float, count: int, seed: int) -> None:
    times = poisson(rate, count, seed)
    assert len(times) == count
    assert times[0] == 0.0
    assert times == sorted(times)
    assert times == poisson(rate, count, seed)


def test_poisson_gaps_have_the_mean_and_the_spread_of_an_exponential() -> None:
    times = poisson(4.0, 20001, seed=3)
    gaps = [after - before for before, after in itertools.pairwise(times)]
    mean = sum(gaps) / len(gaps)
    variance = sum((gap - mean) ** 2 for gap in gaps) / len(gaps)
    assert mean == pytest.approx(0.25, rel=0.03)
    assert variance == pytest.approx(0.25**2, rel=0.06)


def test_another_seed_gives_other_arrivals() -> None:
    assert poisson(1.0, 5, seed=1) != poisson(1.0, 5, seed=2)


@pytest.mark.parametrize(("rate", "count"), [(0.0, 1), (-1.0, 1), (float("nan"), 1), (1.0, 0)])
def test_impossible_schedules_are_refused(rate: float, count: int) -> None:
    with pytest.raises(ValueError, match=r"poisson: got .* allowed"):
        poisson(rate, count, seed=0)


def test_an_empty_burst_is_refused() -> None:
    with pytest.raises(ValueError, match="burst: got 0"):
        burst(0)
