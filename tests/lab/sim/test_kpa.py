from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from predictor.lab.sim.kpa import Autoscaling, Decider

ONE = Autoscaling(container_concurrency=1, target_utilization_percentage=100)


def decided(decider: Decider, seconds: range, concurrency: float, ready: int) -> int:
    """The decision at the end of `seconds` of constant concurrency, one look every two seconds."""
    desired = -1
    for second in seconds:
        decider.record(second, concurrency)
        if second % 2 == 0 and (decision := decider.decide(float(second), ready)):
            desired = decision.desired
    return desired


@pytest.mark.parametrize(
    ("spec", "total", "target"),
    [
        (Autoscaling(), 100, 70),
        (Autoscaling(container_concurrency=10), 10, 7),
        (Autoscaling(container_concurrency=10, target=20), 10, 7),  # no more than the container takes
        (Autoscaling(container_concurrency=10, target=4), 4, 2.8),
        (Autoscaling(target=4, target_utilization_percentage=100), 4, 4),
        (Autoscaling(metric="rps"), 200, 140),
        (Autoscaling(container_concurrency=10, metric="rps", target=20), 20, 14),
        (Autoscaling(target=0.01, target_utilization_percentage=1), 0.01, 0.01),
    ],
)
def test_the_target(spec: Autoscaling, total: float, target: float) -> None:
    assert (spec.total, spec.target_value) == (total, pytest.approx(target))


@pytest.mark.parametrize(("window", "percentage", "panic"), [(60, 10, 6), (6, 10, 1), (6, 1, 1), (3600, 10, 360)])
def test_the_panic_window(window: int, percentage: float, panic: int) -> None:
    assert Autoscaling(window=window, panic_window_percentage=percentage).panic_window == panic


@pytest.mark.parametrize(
    "setting",
    [
        {"window": 5},
        {"window": 3601},
        {"target_utilization_percentage": 0},
        {"target_burst_capacity": -2},
        {"min_scale": 3, "max_scale": 2},
        {"target": 0.0},
        {"scale_down_delay": 3601},
        {"panic_threshold_percentage": 100},
    ],
)
def test_what_knative_refuses_is_refused_by_name(setting: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="allowed"):
        Autoscaling(**setting)  # type: ignore[arg-type]


def test_one_request_at_seventy_percent_asks_for_two_pods_and_panics() -> None:
    decider = Decider(Autoscaling(container_concurrency=1))
    decider.record(0, 1.0)
    decision = decider.decide(0.0, 0)
    assert decision is not None
    assert (decision.desired, decision.panicking) == (2, True)  # ceil(1 / 0.7); 2 / 1 is the threshold


def test_one_request_at_a_hundred_percent_asks_for_one_pod() -> None:
    decider = Decider(ONE)
    decider.record(0, 1.0)
    decision = decider.decide(0.0, 0)
    assert decision is not None
    assert (decision.desired, decision.panicking) == (1, False)


def test_panic_never_scales_down_and_lasts_a_stable_window_past_the_surge() -> None:
    decider = Decider(ONE)
    assert decided(decider, range(7), 10.0, ready=1) == 10
    # Ten pods are enough: second 6 was the last over the threshold, and 60 s without it end the panic.
    for second in range(7, 90):
        decider.record(second, 0.0)
        decision = decider.decide(float(second), 10)
        assert decision is not None
        if second <= 66:
            assert (decision.desired, decision.panicking) == (10, True), second
    assert (decision.desired, decision.panicking) == (5, False)  # floor(10 / 2): half of them at a time


def test_scaling_down_halves_and_one_goes_to_zero_at_once() -> None:
    decider = Decider(ONE)
    decider.record(0, 0.0)
    for ready, desired in ((9, 4), (4, 2), (2, 1), (1, 0), (0, 0)):
        decision = decider.decide(0.0, ready)
        assert decision is not None
        assert decision.desired == desired


def test_a_revision_without_routes_may_go_down_at_once() -> None:
    decider = Decider(ONE)
    decider.record(0, 0.0)
    decision = decider.decide(0.0, 9, reachable=False)
    assert decision is not None
    assert decision.desired == 0


def test_scaling_up_is_bounded_by_its_rate() -> None:
    decider = Decider(replace(ONE, max_scale_up_rate=2.0))
    decider.record(0, 50.0)
    decision = decider.decide(0.0, 3)
    assert decision is not None
    assert decision.desired == 6


def test_scale_down_delay_keeps_the_largest_wish_of_the_delay() -> None:
    decider = Decider(replace(ONE, window=6, scale_down_delay=30))
    decider.record(0, 1.0)
    wishes = []
    for second in range(0, 60, 2):
        decider.record(second, 1.0 if second < 10 else 0.0)
        decision = decider.decide(float(second), 1)
        assert decision is not None
        wishes.append((second, decision.desired))
    # Second 8 is the last with a request; six seconds later the window has forgotten it; 30 s later the delay has.
    assert max(second for second, desired in wishes if desired) == 12 + 28
    assert wishes[-1] == (58, 0)


def test_activation_scale_is_the_least_that_is_started() -> None:
    decider = Decider(replace(ONE, activation_scale=3))
    decider.record(0, 1.0)
    decision = decider.decide(0.0, 0)
    assert decision is not None
    assert decision.desired == 3


def test_nothing_measured_for_a_window_is_no_decision() -> None:
    decider = Decider(replace(ONE, window=6))
    assert decider.decide(0.0, 0) is None
    decider.record(0, 1.0)
    assert decider.decide(5.9, 0) is not None
    assert decider.decide(6.0, 0) is None


def test_an_autoscaler_that_finds_pods_begins_in_panic_and_keeps_them() -> None:
    decider = Decider(ONE, ready=4, now=0.0)
    decider.record(1, 0.0)
    decision = decider.decide(1.0, 4)
    assert decision is not None
    assert (decision.desired, decision.panicking) == (4, True)


@pytest.mark.parametrize(
    ("capacity", "ready", "excess"),
    [(0, 0, 0), (-1, 50, -1), (211, 0, -213), (211, 3, -183), (211, 22, 7)],
)
def test_excess_burst_capacity(capacity: float, ready: int, excess: float) -> None:
    decider = Decider(Autoscaling(container_concurrency=10, target_burst_capacity=capacity))
    decider.record(0, 1.5)
    decision = decider.decide(0.0, ready)
    assert decision is not None
    assert decision.excess_burst_capacity == excess


specs = st.builds(
    Autoscaling,
    container_concurrency=st.integers(0, 20),
    target_utilization_percentage=st.floats(1, 100),
    window=st.integers(6, 40),
    scale_down_delay=st.sampled_from([0.0, 4.0, 20.0]),
    target_burst_capacity=st.sampled_from([-1.0, 0.0, 211.0]),
)


@given(specs, st.lists(st.tuples(st.floats(0, 300), st.integers(0, 30)), min_size=1, max_size=80))
def test_decisions_stay_within_their_bounds(spec: Autoscaling, seconds: list[tuple[float, int]]) -> None:
    decider = Decider(spec)
    largest = 0
    for second, (concurrency, ready) in enumerate(seconds):
        decider.record(second, concurrency)
        largest = max(largest, ready)
        decision = decider.decide(float(second), ready)
        assert decision is not None
        assert decision.desired >= max(1, ready) // 2  # at most half go at once
        assert decision.desired <= 1000 * max(1, largest)
        enough = -(-max(c for c, _ in seconds[: second + 1]) // spec.target_value)
        assert decision.desired <= max(enough + 1, largest // 2)  # means are rounded to six digits, up as well


@given(st.floats(0, 50), st.integers(7, 40))
def test_steady_concurrency_gets_the_pods_that_it_needs(concurrency: float, target: int) -> None:
    spec = Autoscaling(target=float(target), target_utilization_percentage=100)
    needed = -int(-round(concurrency, 6) // target)
    assert decided(Decider(spec), range(120), concurrency, ready=max(1, needed)) in {needed, max(1, needed) // 2}
