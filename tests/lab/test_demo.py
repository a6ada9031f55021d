"""What `make demo` runs, as its own process."""

import os
import re
import shutil

import pytest
from PIL import Image

from predictor.lab.demo.cli import PROMPTS
from predictor.lab.demo.sheet import CAPTION, MARGIN, contact_sheet, in_terminal

CELL = re.compile(r"\x1b\[38;2;(\d+);(\d+);(\d+);48;2;(\d+);(\d+);(\d+)m▀")


def test_the_demo_makes_its_pictures_shows_the_start_and_stops(sdzero, demo_model, tmp_path):
    out = tmp_path / "new" / "folder"
    run = sdzero("demo", "--model", demo_model, "--out", out, "--steps", 4)
    assert run.returncode == 0, run.stderr
    (said,) = run.stderr.splitlines()  # by the command that made the key
    assert said.endswith("keep the secret, it is not shown again")
    pictures = sorted(out.glob("[0-9]*.png"))
    assert len(pictures) == len(PROMPTS) == 6
    contents = set()
    for path in pictures:
        with Image.open(path) as picture:
            assert (picture.size, picture.mode) == ((128, 128), "RGB")
            contents.add(picture.tobytes())
    assert len(contents) == 6
    with Image.open(out / "contact-sheet.png") as sheet:
        assert sheet.size == (3 * (128 + MARGIN) + MARGIN, 2 * (128 + MARGIN + CAPTION) + MARGIN)
    lines = run.stdout.splitlines()
    for path in [*pictures, out / "contact-sheet.png"]:
        assert f"  {path}" in lines
    for phase in ("server imports", "engine torch", "engine ready", "server first_image"):
        assert any(re.match(rf"{phase} .*█.* s$", line) for line in lines), phase
    assert re.search(r"first picture after \d+\.\d\d s, the start of a predictor included", run.stdout)
    assert re.search(r"the same again after \d+ ms, from the cache", run.stdout)
    assert "6 images, 0.4 megapixel-steps" in run.stdout
    assert "1 cold start; answered from the cache: 1" in run.stdout
    assert lines[-1] == "stopped: exit status 0"


@pytest.mark.parametrize("damage", ["weights", "folder"])
def test_the_demo_says_what_is_wrong_with_a_model(sdzero, demo_model, tmp_path, damage):
    model, why = tmp_path / "broken", "broken"
    if damage == "weights":
        shutil.copytree(demo_model, model)
        os.truncate(model / "unet" / "diffusion_pytorch_model.safetensors", 1000)
        why = "unet/diffusion_pytorch_model.safetensors: "
    run = sdzero("demo", "--model", model, "--out", tmp_path / "out")
    assert run.returncode in (1, 2)
    assert f"{tmp_path}" in run.stderr
    assert why in run.stderr
    assert "Traceback" not in run.stderr


def test_a_contact_sheet_has_as_many_columns_as_pictures_at_most():
    red = Image.new("RGB", (20, 10), "red")
    sheet = contact_sheet([red, red], ["a", "a caption that is far too long for its picture"])
    assert sheet.size == (2 * (20 + MARGIN) + MARGIN, 10 + MARGIN + CAPTION + MARGIN)
    assert sheet.getpixel((MARGIN, MARGIN)) == sheet.getpixel((2 * MARGIN + 20, MARGIN)) == (255, 0, 0)
    assert len(contact_sheet([red] * 4, ["a"] * 4).getcolors()) > 2
    assert contact_sheet([red] * 4, ["a"] * 4).height == 2 * (10 + MARGIN + CAPTION) + MARGIN


@pytest.mark.parametrize(("size", "columns", "lines"), [((40, 40), 10, 5), ((40, 20), 10, 2), ((400, 10), 8, 1)])
def test_a_picture_in_the_terminal_has_two_pixels_in_each_character(size, columns, lines):
    picture = Image.new("RGB", size, "blue")
    picture.paste((255, 255, 255), (0, 0, size[0], size[1] // 2))
    shown = in_terminal(picture, columns).split("\n")
    assert len(shown) == lines
    assert all(line.endswith("\x1b[0m") for line in shown)
    cells = [CELL.findall(line) for line in shown]
    assert {len(row) for row in cells} == {columns}
    # White above blue; making the picture smaller blurs the border between them.
    assert min(map(int, cells[0][0][:3])) > 200
    assert max(map(int, cells[-1][-1][3:5])) < 60
