"""Percentiles are samples, intervals are the bootstrap's, and what was given up is never forgotten."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadtest.quantiles import Latencies, cycles_needed, interval_ranks, rank

seconds = st.lists(st.floats(0, 1000), min_size=1, max_size=60)
shares = st.floats(0.01, 1)


@given(seconds, shares)
@settings(deadline=None)
def test_a_quantile_is_the_smallest_sample_that_enough_do_not_exceed(values, share):
    found = Latencies.of(values).quantile(share)
    assert found in values
    assert sum(value <= found for value in values) >= len(values) * share - 1e-9
    below = [value for value in values if value < found]
    assert len(below) < len(values) * share


@given(seconds, seconds, shares)
@settings(max_examples=50, deadline=None)
def test_more_time_never_makes_a_quantile_shorter(values, given_up, share):
    """A request that was given up counts as longer than everything, whatever its client's patience was."""
    before, after = Latencies.of(values), Latencies.of(values, given_up)
    estimate = after.estimate(share)
    assert after.censored == len(given_up)
    assert estimate.at_least == (rank(len(after), share) > len(values))
    if not estimate.at_least:
        assert estimate.value >= before.quantile(share)
        assert estimate.value in values
    assert estimate.low <= estimate.value or estimate.at_least
    assert estimate.high_at_least or estimate.value <= estimate.high


@pytest.mark.parametrize(("count", "share", "expected"), [(20, 0.95, 19), (100, 0.07, 7), (1, 0.99, 1), (10, 1, 10)])
def test_ranks_are_not_moved_by_binary_fractions(count, share, expected):
    assert rank(count, share) == expected


@pytest.mark.parametrize(("count", "share"), [(10, 0.5), (30, 0.95), (200, 0.9)])
def test_the_interval_is_what_resampling_gives(count, share):
    chance = np.random.default_rng(4)
    k = rank(count, share)
    drawn = np.sort(chance.integers(1, count + 1, (20_000, count)), axis=1)[:, k - 1]
    low, high = interval_ranks(count, k)
    assert abs(low - np.quantile(drawn, 0.025)) <= 1
    assert abs(high - np.quantile(drawn, 0.975)) <= 1


def test_the_interval_holds_the_truth_about_as_often_as_it_says():
    chance = np.random.default_rng(7)
    held = 0
    for _ in range(300):
        estimate = Latencies.of(chance.exponential(1.0, 60).tolist()).estimate(0.5)
        held += estimate.low <= math.log(2) <= estimate.high
    assert 0.9 < held / 300 < 0.99


def test_thirty_starts_do_not_bound_a_95th_percentile_and_three_hundred_do():
    few, many = (Latencies.of(list(range(1, count + 1))) for count in (30, 300))
    assert not few.estimate(0.95).bounded
    assert many.estimate(0.95).bounded
    assert few.estimate(0.5).bounded
    assert not many.estimate(1.0).bounded  # nobody knows the longest


def test_requests_of_one_cycle_are_one_sample():
    # Ten cycles of sixteen requests that are equal within a cycle: an interval of 160 samples would be far too narrow.
    cycles = [number for number in range(10) for _ in range(16)]
    times = [float(number) for number in cycles]
    independent, clustered = Latencies.of(times), Latencies.of(times, cycles=cycles)
    assert (independent.independent, clustered.independent) == (160, 10)
    wide, narrow = clustered.estimate(0.5), independent.estimate(0.5)
    assert wide.value == narrow.value
    assert wide.width > 2 * narrow.width
    # It is about as wide as ten single samples have it.
    assert wide.width == pytest.approx(Latencies.of([float(n) for n in range(10)]).estimate(0.5).width, abs=1.0)
    assert clustered.mean().width > 2 * independent.mean().width


def test_how_many_cycles_a_width_needs():
    pilot = Latencies.of(np.random.default_rng(1).normal(6, 1, 200).clip(1).tolist())
    few, many = (cycles_needed(pilot, 0.5, width) for width in (1.0, 0.25))
    # Half as wide takes four times as many.
    assert 8 <= many / few <= 32
    low, high = interval_ranks(few, rank(few, 0.5))
    assert pilot.quantile(high / few) - pilot.quantile(low / few) <= 1.0
    assert cycles_needed(pilot, 0.5, 1e-9, most=1000) is None


@given(seconds)
@settings(max_examples=25, deadline=None)
def test_a_mean_lies_in_its_interval_and_is_a_lower_bound_with_censored_ones(values):
    mean = Latencies.of(values).mean()
    assert mean.value == pytest.approx(np.mean(values))
    assert mean.low <= mean.high
    assert not mean.at_least
    assert Latencies.of(values, [5.0]).mean().at_least


@pytest.mark.parametrize("bad", [[], [float("nan")], [float("inf")]])
def test_there_are_no_percentiles_of_nothing(bad):
    with pytest.raises(ValueError, match="latencies"):
        Latencies.of(bad)
