"""The ruler, proven on drawings whose content is known, before anything is measured with it."""

import ast
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from predictor.lab.shapes import checker
from predictor.lab.shapes.checker import UNCLEAR, Picture, check
from predictor.lab.shapes.drawings import Drawings, render, sample_drawings

DRAWINGS = 400
SEED = 610_223  # of no training, and of no tuning of the checker


@pytest.fixture(scope="module")
def drawings() -> Drawings:
    return sample_drawings(SEED, 1, DRAWINGS)


@pytest.fixture(scope="module")
def pictures(drawings: Drawings) -> list[Picture]:
    pixels = ((render(drawings) + 1) * 127.5).round().byte().permute(0, 2, 3, 1)
    return list(pixels.numpy())


def untouched(picture: Picture) -> Picture:
    return picture


def jpeg(picture: Picture) -> Picture:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=60)
    return np.asarray(Image.open(file))


def blurred(picture: Picture) -> Picture:
    return np.asarray(Image.fromarray(picture).filter(ImageFilter.GaussianBlur(1.2)))


def noisy(picture: Picture) -> Picture:
    random = np.random.default_rng(int(picture.sum()))
    return np.clip(picture + random.normal(0, 8, picture.shape), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("treatment", [untouched, jpeg, blurred, noisy])
def test_it_finds_what_was_drawn(
    drawings: Drawings, pictures: list[Picture], treatment: Callable[[Picture], Picture]
) -> None:
    wrong = []
    for row, picture in enumerate(pictures):
        found, truth = check(treatment(picture)), drawings.facts(row)
        if (found.shape, found.colour, found.background) != (truth.shape, truth.colour, truth.background):
            wrong.append((truth, found))
    assert len(wrong) <= 0.005 * DRAWINGS, wrong


def test_it_finds_where_and_how_large(drawings: Drawings, pictures: list[Picture]) -> None:
    for row, picture in list(enumerate(pictures))[:32]:
        found = check(picture)
        x, y = drawings.centre[row]
        # The boxes of the star and the heart are not centred on the circle around them.
        assert found.centre == pytest.approx((0.5 + x / 128, 0.5 - y / 128), abs=0.06)
        assert max(found.extent) == pytest.approx(2 * 0.9 * drawings.radius[row] / 128, rel=0.2)


def test_a_picture_of_nothing_is_unclear_and_has_a_background() -> None:
    found = check(np.full((128, 128, 3), (40, 80, 222), dtype=np.uint8))
    assert (found.shape, found.colour, found.background) == (UNCLEAR, UNCLEAR, "blue")


def test_two_shapes_are_unclear() -> None:
    picture = np.full((128, 128, 3), 250, dtype=np.uint8)
    picture[20:50, 20:50] = picture[80:110, 80:110] = (222, 32, 40)
    assert check(picture).shape == UNCLEAR


def test_a_smear_is_unclear() -> None:
    picture = np.full((128, 128, 3), 250, dtype=np.uint8)
    picture[60:68, 10:118] = (222, 32, 40)
    assert check(picture).shape == UNCLEAR


def test_it_shares_no_code_with_the_drawings() -> None:
    assert checker.__file__ is not None
    tree = ast.parse(Path(checker.__file__).read_text(encoding="utf-8"))
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert imported == {"colorsys", "dataclasses", "typing", "numpy", "numpy.typing"}
