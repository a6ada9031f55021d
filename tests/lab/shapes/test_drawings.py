import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from predictor.lab.shapes.drawings import (
    BACKGROUNDS,
    COLOURS,
    PIXELS,
    PLACES,
    SHAPE_COLOURS,
    SHAPES,
    SIZES,
    Drawings,
    Facts,
    combinations,
    is_held_out,
    render,
    sample_drawings,
)

Row = npt.NDArray[np.float64]
SYMMETRIC = tuple(name for name in SHAPES if name not in ("triangle", "star", "heart"))
AREAS = {
    "circle": math.pi * 0.92**2,
    "square": 1.6**2,
    "triangle": 1.6**2 / math.sqrt(3),
    "cross": 4 * 0.92 * 0.31 * 2 - 4 * 0.31**2,
    "diamond": 2 * 0.76,
    "ring": math.pi * (0.96**2 - 0.48**2),
}
"""In squares of the radius."""

streams = st.tuples(st.integers(0, 2**31), st.integers(0, 2**33))


def pictures(drawings: Drawings) -> Row:
    """[n, 128, 128, 3] in 0..255."""
    return ((render(drawings).double() + 1) * 127.5).permute(0, 2, 3, 1).numpy()


def coverage(drawings: Drawings) -> Row:
    """How much of each pixel is ink, [n, 128, 128]; fails if a pixel is no mixture of ink and paper."""
    ink, paper = drawings.ink.astype(float)[:, None, None], drawings.paper.astype(float)[:, None, None]
    pixels, span = pictures(drawings), ink - paper
    share: Row = ((pixels - paper) * span).sum(3) / (span**2).sum(3)
    np.testing.assert_allclose(paper + share[..., None] * span, pixels, atol=0.01)
    assert share.min() > -1e-4
    assert share.max() < 1 + 1e-4
    return share


@settings(deadline=None, max_examples=20)
@given(streams)
def test_names_and_measures_agree(stream: tuple[int, int]) -> None:
    drawings = sample_drawings(*stream, 16)
    for row in range(16):
        facts = drawings.facts(row)
        assert facts.colour != facts.background
        low, high = SIZES[facts.size]
        assert low <= drawings.radius[row] <= high
        right, up = PLACES[facts.place]
        x, y = drawings.centre[row]
        room = PIXELS / 2 - 6 - drawings.radius[row]
        assert abs(x - right * room) <= 4 + 0.15 * room
        assert abs(y - up * room) <= 4 + 0.15 * room
        np.testing.assert_allclose(drawings.ink[row], COLOURS[facts.colour], atol=2.001)
        np.testing.assert_allclose(drawings.paper[row], COLOURS[facts.background], atol=2.001)


@settings(deadline=None, max_examples=10)
@given(streams)
def test_pictures_show_the_facts(stream: tuple[int, int]) -> None:
    drawings = sample_drawings(*stream, 12)
    for row, share in enumerate(coverage(drawings)):
        facts, radius = drawings.facts(row), float(drawings.radius[row])
        # Nothing touches the frame, so the paper's colour is exact there, and full ink exists.
        assert max(share[0].max(), share[-1].max(), share[:, 0].max(), share[:, -1].max()) < 1e-4
        assert share.max() > 1 - 1e-4
        y, x = np.nonzero(share > 0.5)
        middle = np.array([x.min() + x.max() + 1 - PIXELS, PIXELS - y.min() - y.max() - 1]) / 2
        np.testing.assert_allclose(middle, drawings.centre[row], atol=0.12 * radius + 1)
        assert 1.5 * radius < max(np.ptp(x), np.ptp(y)) + 1 < 2 * radius + 1
        if facts.shape in AREAS:
            assert share.sum() == pytest.approx(AREAS[facts.shape] * radius**2, rel=0.02)


@settings(deadline=None, max_examples=10)
@given(streams)
def test_edges_are_soft_over_one_pixel(stream: tuple[int, int]) -> None:
    for share in coverage(sample_drawings(*stream, 12)):
        soft = (share > 1e-4) & (share < 1 - 1e-4)
        assert soft.any()
        near = np.lib.stride_tricks.sliding_window_view(np.pad(share, 1, mode="edge"), (3, 3))
        # The pixels around a soft one reach from paper to ink, except at the tips of a shape.
        across = near.max((2, 3)) - near.min((2, 3))
        assert (across[soft] > 0.999).mean() > 0.8


@pytest.mark.parametrize("shape", SHAPES)
def test_a_shape_is_its_own_mirror_image(shape: str) -> None:
    share = coverage(one(Facts(shape, "red", "white", "large", "middle")))[0]
    np.testing.assert_allclose(share, share[:, ::-1], atol=1e-3)
    upright = np.allclose(share, share[::-1], atol=1e-3)
    assert upright == (shape in SYMMETRIC)


def test_the_ring_has_a_hole_and_the_others_have_none() -> None:
    for shape in SHAPES:
        share = coverage(one(Facts(shape, "red", "white", "large", "middle")))[0]
        assert (share[64, 64] < 0.5) == (shape == "ring")


def one(facts: Facts) -> Drawings:
    """A drawing exactly in the middle, in exactly the colours of the table."""

    def index(names: tuple[str, ...], name: str) -> npt.NDArray[np.int64]:
        return np.array([names.index(name)])

    return Drawings(
        index(SHAPES, facts.shape),
        index(SHAPE_COLOURS, facts.colour),
        index(BACKGROUNDS, facts.background),
        index(tuple(SIZES), facts.size),
        index(tuple(PLACES), facts.place),
        np.array([SIZES[facts.size][0]], dtype=np.float32),
        np.zeros((1, 2), dtype=np.float32),
        np.array([COLOURS[facts.colour]], dtype=np.float32),
        np.array([COLOURS[facts.background]], dtype=np.float32),
    )


@pytest.mark.parametrize("colour", SHAPE_COLOURS)
def test_colours_are_exact(colour: str) -> None:
    background = "grey"
    picture = pictures(one(Facts("square", colour, background, "medium", "middle")))[0].round()
    assert tuple(picture[64, 64]) == COLOURS[colour]
    assert tuple(picture[0, 0]) == COLOURS[background]


@settings(deadline=None, max_examples=10)
@given(streams, st.booleans())
def test_the_stream_decides(stream: tuple[int, int], held_out: bool) -> None:
    first, again = (sample_drawings(*stream, 8, held_out=held_out) for _ in range(2))
    np.testing.assert_array_equal(first.centre, again.centre)
    assert [first.facts(row) for row in range(8)] == [again.facts(row) for row in range(8)]
    seed, counter = stream
    assert (sample_drawings(seed, counter + 1, 8).radius != first.radius).any()


def test_held_out_combinations_are_never_drawn_for_training() -> None:
    for held_out in (False, True):
        drawings = sample_drawings(3, 4, 4096, held_out=held_out)
        facts = [drawings.facts(row) for row in range(4096)]
        assert {is_held_out(f.shape, f.colour, f.background) for f in facts} == {held_out}


def test_enough_is_drawn() -> None:
    trained, kept = combinations(held_out=False), combinations(held_out=True)
    assert len(set(trained) | set(kept)) == len(trained) + len(kept)
    assert 0.05 < len(kept) / (len(trained) + len(kept)) < 0.15
    for place, names in enumerate((SHAPES, SHAPE_COLOURS, BACKGROUNDS)):
        assert {combination[place] for combination in trained} == set(range(len(names)))
