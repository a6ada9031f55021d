import pytest
from hypothesis import given
from hypothesis import strategies as st

from predictor.lab.sim.buckets import LatestMaximum, Window


def filled(seconds: int, *values: float, aggregation: str = "linear") -> Window:
    """`values` at seconds 0, 1, 2, …"""
    window = Window(seconds, aggregation)  # type: ignore[arg-type]
    for second, value in enumerate(values):
        window.record(second, value)
    return window


def test_what_is_recorded_twice_in_a_second_adds_up() -> None:
    window = filled(6, 1.0)
    window.record(0, 2.0)  # the activator's word, then the scrape's
    assert window.mean(0) == 3.0


def test_the_mean_is_over_the_seconds_that_were_written_until_the_window_is_full() -> None:
    assert filled(6, 3.0).mean(0) == 3.0
    assert filled(6, 3.0, 0.0, 0.0).mean(2) == 1.0
    assert filled(6, 9.0, *[1.0] * 6).mean(6) == 1.0  # the 9 has left


def test_silence_takes_old_seconds_out_of_sum_and_divisor() -> None:
    window = filled(6, *[6.0, 1.0, 1.0, 1.0, 1.0, 1.0])
    assert window.mean(5) == pytest.approx(11 / 6, abs=1e-6)
    assert window.mean(7) == 1.0  # seconds 2 to 5 are left: 4 / min(6, 6 - 2)
    assert window.mean(11) == 0.0
    assert window.is_empty(11)
    assert not window.is_empty(10)


def test_after_a_silent_window_counting_begins_anew() -> None:
    window = filled(6, *[5.0] * 6)
    window.record(20, 2.0)
    assert window.mean(20) == 2.0


def test_means_have_six_digits() -> None:
    assert filled(6, 1.0, 0.0, 0.0).mean(2) == 0.333333


def test_the_weighted_mean_prefers_what_is_new() -> None:
    window = filled(60, *[0.0] * 59, 1.0, aggregation="weighted-exponential")
    assert window.mean(59) == pytest.approx(0.2)
    assert window.mean(60) == pytest.approx(0.2 * 0.8)
    # A window of six: 1 - 0.0001 ** (1 / 6) is larger than 0.2.
    assert filled(6, 1.0, aggregation="weighted-exponential").mean(0) == pytest.approx(1 - 0.0001 ** (1 / 6))


@given(
    st.integers(1, 12),
    st.lists(st.tuples(st.integers(0, 5), st.floats(0, 100)), min_size=1, max_size=60),
    st.integers(0, 14),
)
def test_the_running_mean_is_the_plain_one(seconds: int, steps: list[tuple[int, float]], later: int) -> None:
    window = Window(seconds)
    written: dict[int, float] = {}
    first = second = 0
    for gap, value in steps:
        if written and gap >= seconds:
            first = second + gap
        second += gap
        first = second if not written else first
        written[second] = written.get(second, 0.0) + value
        window.record(second, value)
    now = second + later
    kept = sum(v for s, v in written.items() if now - seconds < s and s >= first)
    expected = 0.0 if later >= seconds else kept / min(second - first + 1, seconds - later)
    assert window.mean(now) == pytest.approx(expected, abs=1e-6, rel=1e-9)


@given(st.integers(1, 40), st.lists(st.tuples(st.integers(0, 9), st.integers(0, 50)), min_size=1, max_size=60))
def test_the_latest_maximum_is_that_of_its_buckets(seconds: int, steps: list[tuple[int, int]]) -> None:
    maximum = LatestMaximum(seconds, 2.0)
    now, seen = 0, []
    for gap, value in steps:
        now += gap
        seen.append((now // 2, value))
        expected = max(v for bucket, v in seen if bucket > now // 2 - -(-seconds // 2))
        assert maximum.record(now, value) == expected
