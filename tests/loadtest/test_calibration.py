"""What the calibration calls good."""

import pytest

from loadtest.calibration import Check


@pytest.mark.parametrize(
    ("said", "true", "count", "good"),
    [
        (0.0549, 0.05, False, True),  # 5 ms
        (0.0551, 0.05, False, False),
        (2.019, 2.0, False, True),  # 1 %
        (2.021, 2.0, False, False),
        (-0.004, 0.0, False, True),
        (1000, 1000, True, True),
        (999, 1000, True, False),  # of counts nothing may be missing
    ],
)
def test_an_error_of_one_per_cent_or_five_milliseconds_is_good(said, true, count, good):
    assert Check("latency p95", said, true, count).good is good
    assert Check("latency p95", said, true, count).named("fast: ").name == "fast: latency p95"
