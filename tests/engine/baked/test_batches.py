"""Which shapes a GPU is asked to rehearse, and what may be run meanwhile: with a thread that does as it is told."""

from concurrent.futures import Future
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from predictor.engine.baked.batches import WORTH, Batches
from predictor.engine.baked.libtorch import NoMemory
from predictor.engine.baked.manifest import Package as Recipe
from predictor.engine.baked.program import Programs, Shape


class Rehearsals(Programs):
    """Ends a rehearsal when the test says so."""

    def __init__(self) -> None:
        self.asked: list[Shape] = []
        self.last: Future[None] = Future()

    def rehearse(self, _: Recipe, shape: Shape) -> "Future[None]":
        self.asked.append(shape)
        self.last = Future()
        return self.last


def batches(most: int = 16) -> tuple[Batches, Rehearsals]:
    recipe = Recipe("many", "step", "x.so", 64, 64, (2, most), (2, 2 * most), {})
    rehearsals = Rehearsals()
    return Batches(rehearsals, recipe), rehearsals


def enough(many: Batches, images: int, evaluations: int) -> None:
    for _ in range(-(-WORTH // images)):
        many.one_by_one(images, evaluations)


def test_what_is_seldom_wanted_is_not_rehearsed() -> None:
    many, rehearsals = batches()
    many.one_by_one(WORTH - 1, WORTH - 1)
    assert rehearsals.asked == []


def test_a_larger_shape_serves_if_it_wastes_little() -> None:
    many, rehearsals = batches()
    enough(many, 16, 32)
    rehearsals.last.set_result(None)
    assert [many.ready(images, 2 * images) is not None for images in (10, 11, 12, 16)] == [False, True, True, True]
    assert many.ready(12, 13) == Shape(16, 32)


def test_a_shape_is_ready_when_its_rehearsal_has_ended_and_not_before() -> None:
    many, rehearsals = batches()
    assert many.ready(3, 6) is None
    enough(many, 3, 6)
    assert many.ready(3, 6) is None
    rehearsals.last.set_result(None)
    assert many.ready(3, 6) == many.ready(4, 8) == Shape(4, 8)
    assert rehearsals.asked == [Shape(4, 8)]


def test_one_is_rehearsed_at_a_time_and_none_runs_meanwhile() -> None:
    many, rehearsals = batches()
    enough(many, 2, 4)
    rehearsals.last.set_result(None)
    assert many.ready(2, 4)
    enough(many, 16, 32)
    enough(many, 8, 16)
    assert many.ready(2, 4) is None, "the thread is taken"
    rehearsals.last.set_result(None)
    assert many.ready(2, 4)
    assert rehearsals.asked == [Shape(2, 4), Shape(16, 32)]


def test_what_went_wrong_is_told_once_and_tried_again() -> None:
    many, rehearsals = batches()
    enough(many, 16, 32)
    rehearsals.last.set_exception(NoMemory("out of memory"))
    with pytest.raises(NoMemory):
        many.ready(16, 32)
    assert many.ready(16, 32) is None
    enough(many, 8, 16)
    rehearsals.last.set_result(None)
    assert many.ready(8, 16) == Shape(8, 16)


@given(st.integers(2, 31), st.data())
def test_a_rung_holds_what_it_is_for_and_is_one_that_the_package_takes(most: int, data: Any) -> None:
    images = data.draw(st.integers(2, most))
    evaluations = data.draw(st.integers(images, 2 * images))
    many, _ = batches(most)
    shape = many.rung(images, evaluations)
    assert images <= shape.images <= most
    assert evaluations <= shape.evaluations <= 2 * shape.images
    assert shape.evaluations == shape.images or evaluations > images
    assert shape.images <= 2 * images
