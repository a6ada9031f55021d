"""The simulator against a replay: what counts as agreement is what a person would count."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from loadtest import pods
from loadtest.agreement import agree, apart
from loadtest.phases import ColdStart as Seen
from loadtest.phases import Moment, State
from loadtest.replays import Played, curve, measured, simulated
from loadtest.run import Held
from loadtest.samples import Sample
from predictor.lab.sim.configurations import CONFIGURATIONS
from predictor.lab.sim.measured import LEAN, PLAIN, ColdStart

Make = Callable[..., Sample]
RUNS = Path(__file__).parents[2] / "docs" / "measurements" / "cluster"


@pytest.fixture
def warm(sample: Make) -> list[Sample]:
    """Single requests of a predictor whose step of n images takes 20 + 10 n ms, and whose decoder 40 n ms."""

    def one(index: int, images: int, steps: int) -> Sample:
        denoise, decode = steps * (0.02 + 0.01 * images), 0.04 * images
        return sample(
            index,
            intended=10.0 * index,
            latency=denoise + decode + 0.05 + 0.003 * images,
            images=images,
            steps=steps,
            cold=False,
            server_timing=f"denoise;dur={1000 * denoise}, decode;dur={1000 * decode}",
        )

    return [one(index, images, steps) for index, (images, steps) in enumerate([(1, 10), (2, 10), (4, 30), (1, 30)])]


def seen(**at: float) -> Seen:
    """A pod's start, seen by the watches."""
    moments = [Moment(name=name, at=moment, received=moment) for name, moment in at.items()]
    return Seen(cycle=0, target="a", state=State(), seconds=0.0, parts=[], moments=moments)


def test_step_times_and_starts_are_read_off_single_requests(warm: list[Sample], sample: Make) -> None:
    # The first picture's own steps were slow, which is no part of its start.
    slow = "denoise;dur=900, decode;dur=40"
    starts = [
        (sample(n, latency=2.993 + 0.1 * n, images=1, steps=10, cold=True, server_timing=slow), seen(ready=n + 2.05))
        for n in range(2)
    ]
    found = pods.predictor(LEAN, [warm], starts)
    assert dict(found.steps.seconds) == pytest.approx({1: 0.03, 2: 0.04, 4: 0.06})
    assert dict(found.decode.seconds) == pytest.approx({1: 0.04, 2: 0.08, 4: 0.16})
    assert (found.request_overhead, found.packing, found.packers) == pytest.approx((0.05, 0.003, 1))
    assert [start.ready for start in found.cold_starts] == pytest.approx([2.0, 2.1])
    assert [start.counted for start in found.cold_starts] == pytest.approx([2.05, 2.1])
    assert found.rows == LEAN.rows


def test_a_pod_that_was_not_ready_for_the_kubelet_when_the_picture_came_is_so_with_the_next_probe(
    warm: list[Sample], sample: Make
) -> None:
    start = sample(0, intended=5.0, latency=2.0, images=1, steps=10)
    (found,) = pods.predictor(LEAN, [warm], [(start, seen(started=5.6))]).cold_starts
    assert found.counted == pytest.approx(10.6)
    (unseen,) = pods.predictor(LEAN, [warm], [(start, seen())]).cold_starts
    assert unseen.noticed is None


def test_requests_that_overlap_or_waited_for_a_start_tell_no_step_times(warm: list[Sample], sample: Make) -> None:
    slow = "denoise;dur=9000, decode;dur=9000"
    disturbed = [
        *warm,
        sample(90, intended=100.0, latency=20.0, images=1, steps=10, server_timing=slow, cold=False),
        sample(91, intended=101.0, latency=1.0, images=1, steps=10, server_timing=slow, cold=False),
        sample(92, intended=200.0, latency=20.0, images=1, steps=10, server_timing=slow, cold=True),
    ]
    start = [(sample(0, latency=3.0, images=1, steps=10, cold=True), seen())]
    assert pods.predictor(LEAN, [disturbed], start) == pods.predictor(LEAN, [warm], start)
    # Requests of two runs do not meet.
    assert pods.predictor(LEAN, [warm, warm], start) == pods.predictor(LEAN, [warm], start)


def test_a_predictor_that_tells_nothing_is_a_line_over_its_steps(sample: Make) -> None:
    warm = [
        sample(n, intended=10.0 * n, latency=0.2 + 0.05 * steps, images=1, steps=steps)
        for n, steps in enumerate([10, 30, 10])
    ]
    found = pods.predictor(PLAIN, [warm], [(sample(0, latency=7.7, images=1, steps=10), seen())])
    assert found.steps.table(1)[1] == pytest.approx(0.05)
    assert found.decode.table(1)[1] == pytest.approx(0.2)
    assert [start.ready for start in found.cold_starts] == pytest.approx([7.0])


def test_what_was_not_measured_is_named(warm: list[Sample], sample: Make) -> None:
    with pytest.raises(ValueError, match="starts: got none that was answered"):
        pods.predictor(LEAN, [warm], [(sample(0, outcome="lost"), seen())])
    alike = [sample(n, intended=9.0 * n, images=1, steps=10) for n in range(3)]
    with pytest.raises(ValueError, match=r"got steps \[10\]; allowed: two numbers"):
        pods.predictor(PLAIN, [alike], [])
    with pytest.raises(ValueError, match="allowed: one size"):
        pods.predictor(LEAN, [[*warm, sample(99, intended=500.0, size="64x64")]], [])


def test_a_curve_is_a_mean_of_each_second() -> None:
    assert curve([(0.5, 2.25), (1.0, 3.0)], 4).tolist() == pytest.approx([0.5, 2.0, 1.25, 0.0])
    assert curve([], 2).tolist() == [0.0, 0.0]


def test_how_far_counts_are_apart_and_how_far_chance_keeps_them() -> None:
    real, world = np.array([1.0, 1.0, 2.0, 0.0]), np.array([1.0, 1.0, 1.0, 0.0])
    found = apart(real, [world, world])
    assert (found.found, found.expected) == (pytest.approx(0.25), 0.0)
    assert apart(real, [real, world]).expected > 0


def played(*latencies: float, until: float = 10.0) -> Played:
    return Played(latencies=sorted(latencies), pods=[(0.0, until + 3.0)], replicas=[(0.0, until)])


def test_agreement_is_judged_figure_by_figure() -> None:
    real = played(*[1.0] * 18, 2.0, 3.0)
    worlds = [played(*[1.1] * 18, 2.5, 3.0, until=until) for until in (9.0, 10.0, 12.0)]
    found, ratios, agrees = agree(real, worlds, 0.15)
    assert (found["replica_seconds"].value, found["replica_seconds"].high) == (10.0, pytest.approx(11.9))
    assert ratios["p50"] == pytest.approx(1.1)
    assert agrees == {"p50": True, "p95": False, "pod_seconds": True, "replica_seconds": True}


def test_a_run_whose_end_nobody_saw_is_compared_with_nothing(sample: Make) -> None:
    pod = Held(target="a", since=0.1, ready=2.0, leaving=12.0, until=15.0)
    real = measured([sample(0), sample(1)], [pod])
    assert (real.pods, real.replicas) == ([(0.1, 15.0)], [(0.1, 12.0)])
    with pytest.raises(ValueError, match="pod of second 0: its end was not seen"):
        measured([sample(0)], [Held(target="a", since=0.1, until=None)])
    with pytest.raises(ValueError, match="request 1: got lost"):
        measured([sample(0), sample(1, outcome="lost")], [pod])


def test_a_world_replays_the_runs_own_arrivals(sample: Make) -> None:
    base = CONFIGURATIONS["sdzero-ended-drains"]()
    kind = replace(LEAN, cold_starts=(ColdStart(2.0),))
    configuration = replace(base, predictor=kind, floor=(0.0, 0.0), edge=None)
    found = [sample(n, intended=at, images=1, steps=30) for n, at in enumerate([0.0, 20.0, 200.0])]
    one = simulated(found, configuration, 3)
    warm = 0.016 + 30 * 0.00735 + 0.009 + 0.045
    assert one.latencies == pytest.approx([warm, 2.0 + warm, 2.0 + warm])
    assert len(one.pods) == 2
    assert one.pods[0][0] == pytest.approx(0.0)
    # A replica is a pod until it is told to go; then it drains.
    drains = [gone - told for (_, gone), (_, told) in zip(one.pods, one.replicas, strict=True)]
    assert drains == pytest.approx([3.5, 3.5])
    assert simulated(found, configuration, 3) == one
