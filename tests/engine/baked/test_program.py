"""How a call's inputs come together, on the host's memory."""

import ctypes
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from predictor.engine.baked.device import Host, Memory
from predictor.engine.baked.manifest import Package as Recipe
from predictor.engine.baked.program import Geometry, Program, Programs, Slice
from predictor.engine.baked.runtime import _evaluations

SIZE = 16
GEOMETRY = Geometry(channels=4, scale=8, dtype="float32", tokens=7, encoders=1, width=5, pooled=0)
NOTHING: Any = None  # in place of libraries: nothing is run here


def recipe(name: str, kind: Any = "step", size: int = 64, images: tuple[int, int] = (1, 1)) -> Recipe:
    return Recipe(name, kind, "x.so", size, size, images, images, {})


def program(host: Host) -> Program:
    return Program(recipe("step"), NOTHING, NOTHING, host, GEOMETRY)


def filled(host: Host, rows: int, value: int) -> Memory:
    memory = host.allocate(rows * SIZE)
    host.upload(memory.address, np.arange(rows * SIZE, dtype=np.uint8) + np.uint8(value))
    return memory


def read(address: int, size: int) -> bytes:
    return ctypes.string_at(address, size)


def test_neighbours_are_used_where_they_are() -> None:
    host = Host()
    memory = filled(host, 4, 0)
    rows = [Slice(memory.address + number * SIZE, memory) for number in (1, 2, 3)]
    assert program(host).together("latents", rows, SIZE) == memory.address + SIZE


@pytest.mark.parametrize("order", [(1, 0), (0, 2), (0, 0)])
def test_others_are_copied_and_stay_as_they_were(order: tuple[int, ...]) -> None:
    host = Host()
    memory = filled(host, 3, 0)
    before = read(memory.address, 3 * SIZE)
    rows = [Slice(memory.address + number * SIZE, memory) for number in order]
    own = program(host)
    address = own.together("latents", rows, SIZE)
    assert read(address, 2 * SIZE) == b"".join(before[n * SIZE : (n + 1) * SIZE] for n in order)
    assert read(memory.address, 3 * SIZE) == before


def test_rows_side_by_side_that_belong_to_two_are_copied() -> None:
    host = Host()
    first, second = filled(host, 1, 0), filled(host, 1, 100)
    rows = [Slice(first.address, first), Slice(first.address + SIZE, second)]
    assert program(host).together("latents", rows, SIZE) != first.address


@given(st.lists(st.sampled_from(["slice", "array", "none"]), min_size=1, max_size=6), st.integers(0, 200))
def test_whatever_comes_is_put_in_order(kinds: list[str], value: int) -> None:
    host = Host()
    memory = filled(host, 8, value)
    parts: list[Slice | NDArray[Any] | None] = []
    expected = b""
    for number, kind in enumerate(kinds):
        if kind == "slice":
            place = memory.address + (7 - number) * SIZE
            parts.append(Slice(place, memory))
            expected += read(place, SIZE)
        elif kind == "array":
            parts.append(np.full(SIZE // 4, number, np.float32))
            expected += np.full(SIZE // 4, number, np.float32).tobytes()
        else:
            parts.append(None)
            expected += bytes(SIZE)
    own = program(host)
    own.staging("latents", 8 * SIZE)
    ctypes.memset(own.staging("latents", 8 * SIZE), 255, 8 * SIZE)
    assert read(own.together("latents", parts, SIZE), len(kinds) * SIZE) == expected


@given(st.lists(st.booleans(), min_size=1, max_size=20))
def test_an_unguided_image_costs_one_evaluation(guided: list[bool]) -> None:
    images, positive, negative = _evaluations(guided)
    assert len(images) == len(guided) + sum(guided)
    for image, twice in enumerate(guided):
        assert images[positive[image]] == images[negative[image]] == image
        assert (positive[image] != negative[image]) == twice
    assert sorted({*positive, *negative}) == list(range(len(images)))


def test_the_smallest_package_that_takes_all_images_is_chosen() -> None:
    recipes = [recipe("one"), recipe("many", images=(2, 16)), recipe("large", size=128, images=(1, 4))]
    programs = Programs(recipes, "cpu", NOTHING)
    chosen = [programs.best("step", (64, 64), images).name for images in (1, 2, 16, 40, 1)]
    assert chosen == ["one", "many", "many", "many", "one"]
    assert programs.best("step", (128, 128), 3).name == "large"


def test_each_is_opened_once() -> None:
    opened: list[str] = []

    def opener(chosen: Recipe) -> Program:
        opened.append(chosen.name)
        return Program(chosen, NOTHING, NOTHING, Host(), GEOMETRY)

    recipes = [recipe("one"), recipe("many", images=(2, 16))]
    programs = Programs(recipes, "cpu", opener)
    assert [programs.begin(recipes[which]).result().recipe.name for which in (0, 1, 0)] == ["one", "many", "one"]
    assert opened == ["one", "many"]


def test_on_a_gpu_a_package_for_several_images_holds_up_nobody() -> None:
    recipes = [recipe("one"), recipe("many", images=(2, 16)), recipe("text", kind="text")]
    threads = [
        {id(programs.thread(each)) for each in recipes}
        for programs in (Programs(recipes, "cuda", NOTHING), Programs(recipes, "cpu", NOTHING))
    ]
    assert [len(each) for each in threads] == [3, 1]


def test_a_package_that_cannot_be_opened_says_so_every_time() -> None:
    def opener(_: Recipe) -> Program:
        raise ValueError("damaged")

    programs = Programs([recipe("one")], "cpu", opener)
    for _ in range(2):
        with pytest.raises(ValueError, match="damaged"):
            programs.begin(programs.best("step", (64, 64), 1)).result()
