from concurrent.futures import Future
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from predictor.engine.baked.batches import Batches
from predictor.engine.baked.manifest import Package
from predictor.engine.baked.program import Programs, Shape
from predictor.engine.schedule import Row, Schedule
from predictor.lab.sim.engine import Engine
from predictor.lab.sim.measured import LEAN, PLAIN, Predictor, Rehearsal, StepTimes

# Powers of two: every sum below is exact.
CLEAN = replace(
    LEAN,
    rows=4,
    steps=StepTimes(((1, 0.25), (2, 0.5), (4, 1.0))),
    decode=StepTimes(((1, 0.125), (4, 0.5))),
)
# The same, whose steps of several images are slower until they are rehearsed, which takes a second.
FRESH = replace(
    CLEAN,
    steps=StepTimes(((1, 0.25), (2, 0.375), (4, 0.625)), Rehearsal(sizes=(2, 4), worth=20, waste=1.5, seconds=1.0)),
)
arrivals = st.lists(st.tuples(st.integers(0, 40), st.integers(1, 6), st.integers(1, 5)), min_size=1, max_size=12)


def drive(engine: Engine, requests: list[tuple[float, int, int]]) -> dict[int, float]:
    """When the device let go of each (time, rows, steps)."""
    done: dict[int, float] = {}
    left = list(enumerate(requests))
    while left or engine.wake is not None:
        if left and (engine.wake is None or left[0][1][0] <= engine.wake):
            number, (at, rows, steps) = left.pop(0)
            engine.add(at, number, rows, steps)
        else:
            done.update(engine.advance(engine.wake))  # type: ignore[arg-type]
    return done


class Rehearsals(Programs):
    """A rehearsal takes a second of the time that it is told."""

    def __init__(self) -> None:
        self.now = 0.0
        self.last: tuple[float, Future[None]] | None = None

    def rehearse(self, _: Package, __: Shape) -> "Future[None]":
        self.last = self.now + 1.0, Future()
        return self.last[1]

    def go_on(self, now: float) -> None:
        self.now = now
        if self.last is not None and self.last[0] <= now and not self.last[1].done():
            self.last[1].set_result(None)


def step_by_step(requests: list[tuple[float, int, int]], predictor: Predictor) -> dict[int, float]:
    """The same with the predictor's own scheduler and batches, one call after the other."""
    schedule, now, done = Schedule(4), 0.0, {}
    rehearsals = Rehearsals()
    batches = Batches(rehearsals, Package("many", "step", "x.so", 64, 64, (2, 4), (2, 8), {}))
    steps, decode = predictor.steps.table(4), predictor.decode.table(4)
    left = list(enumerate(requests))
    unfinished = {number: rows for number, (_, rows, _) in left}
    while left or len(schedule):
        while left and left[0][1][0] <= now:
            number, (_, rows, count) = left.pop(0)
            schedule.add([Row(str(number), index, (512, 512), count) for index in range(rows)])
        rows_now = schedule.next_rows()
        if not rows_now:
            now = left[0][1][0]
            continue
        rehearsals.go_on(now)
        together = len(rows_now)
        if together > 1 and predictor.steps.rehearsal is not None:
            shape = batches.ready(together, 2 * together)
            if shape is None:
                batches.one_by_one(together, 2 * together)
            now += together * steps[1] if shape is None else steps[shape.images]
        else:
            now += steps[together]
        finished = schedule.advance(rows_now)
        now += decode[len(finished)] if finished else 0.0
        for row in finished:
            unfinished[int(row.request)] -= 1
            if not unfinished[int(row.request)]:
                done[int(row.request)] = now
    return done


@pytest.mark.parametrize("predictor", [CLEAN, FRESH])
@given(arrivals)
def test_times_are_those_of_the_predictors_scheduler(predictor: Predictor, drawn: list[tuple[int, int, int]]) -> None:
    # An eighth off the grid of steps, so that no arrival meets a boundary.
    requests = sorted((at / 4 + 1 / 16, rows, steps) for at, rows, steps in drawn)
    assert drive(Engine(predictor), requests) == pytest.approx(step_by_step(requests, predictor))


def test_a_fresh_engine_steps_several_images_one_by_one_until_they_are_rehearsed() -> None:
    engine = Engine(FRESH)
    # 20 images have stepped with the fifth step of 1 s, beside which the rehearsal runs. Then steps take 0.625 s.
    assert drive(engine, [(0.0, 4, 8)]) == {0: 5 * 1.0 + 3 * 0.625 + 0.5}
    # Three are stepped as four, two by themselves: four would waste too much.
    assert drive(engine, [(20.0, 3, 2)]) == {0: 20 + 2 * 0.625 + 0.375}
    assert drive(engine, [(30.0, 2, 2)]) == {0: 30 + 2 * 0.5 + 0.25}
    engine.restart()
    assert drive(engine, [(40.0, 3, 2)]) == {0: 40 + 2 * 0.75 + 0.375}


def test_a_newcomer_waits_for_the_step_that_runs() -> None:
    # Alone: steps of 0.25 s. At 0.3 the second step runs; from 0.5 on both share steps of 0.5 s.
    done = drive(Engine(CLEAN), [(0.0, 1, 4), (0.3, 1, 1)])
    assert done == {1: 0.5 + 0.5 + 0.125, 0: 1.125 + 0.25 + 0.125}


def test_a_lock_serves_one_request_after_the_other() -> None:
    each = 30 * 0.0553 + 0.014
    done = drive(Engine(PLAIN), [(0.0, 1, 30), (0.1, 1, 30)])
    assert done == pytest.approx({0: each, 1: 2 * each})


@given(arrivals)
def test_busy_time_is_what_the_steps_and_decodes_took(drawn: list[tuple[int, int, int]]) -> None:
    requests = sorted((float(at), rows, steps) for at, rows, steps in drawn)
    engine = Engine(CLEAN)
    done = drive(engine, requests)
    assert engine.idle
    assert set(done) == set(range(len(requests)))
    assert engine.busy_seconds <= max(done.values()) + 1e-9
    assert engine.busy_seconds >= sum(rows * steps for _, rows, steps in requests) * 0.25 - 1e-9


def test_step_times_between_and_beyond_the_measured_sizes() -> None:
    table = StepTimes(((1, 1.0), (2, 1.5), (4, 3.5))).table(6)
    assert table == pytest.approx([0.0, 1.0, 1.5, 2.5, 3.5, 4.5, 5.5])
    with pytest.raises(ValueError, match="sizes"):
        StepTimes(((2, 1.0), (4, 2.0)))
