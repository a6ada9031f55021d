import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from predictor.engine.folder import FolderError, ModelFolder
from predictor.lab.bake.plan import Size, jobs

SHAPES = Path(__file__).parents[3] / "predictor" / "models" / "shapes"


def test_the_native_size_is_the_default():
    planned = jobs(ModelFolder.open(SHAPES), "cpu", [], 16, False)
    assert [job.name for job in planned] == [
        *("step-128x128-n", "step-128x128-1", "decode-128x128", "preview-128x128", "text")
    ]
    assert planned[0].images == (2, 16)
    assert planned[0].evaluations == (2, 32)
    assert planned[1].images == (1, 1)
    assert planned[1].evaluations == (2, 2)
    assert planned[0].latents == (4, 16, 16)
    assert {job.dtype for job in planned} == {"float32"}


def test_every_size_has_packages_and_text_has_one():
    planned = jobs(ModelFolder.open(SHAPES), "cpu", [Size(64, 128), Size(128, 64), Size(64, 128)], 1, False)
    assert [job.name for job in planned] == [
        *("step-64x128-1", "step-128x64-1", "decode-64x128", "preview-64x128", "decode-128x64", "preview-128x64"),
        "text",
    ]
    assert planned[0].latents == (4, 8, 16)


def test_a_gpu_computes_in_half_precision_but_for_decoders_that_overflow(small: Callable[..., Path]):
    planned = {job.kind: job for job in jobs(ModelFolder.open(small("small-sdxl")), "cuda", [], 16, False)}
    assert planned["step"].dtype == planned["text"].dtype == "float16"
    assert planned["decode"].dtype == "float32"
    assert planned["step"].pooled == 32
    assert planned["step"].hidden == 64
    assert planned["text"].projected == ("text_encoder_2",)


@pytest.mark.parametrize("size", [Size(56, 128), Size(128, 100), Size(0, 128)])
def test_a_size_that_the_model_cannot_draw_is_refused(size: Size):
    with pytest.raises(FolderError, match=rf"--size {size}: allowed for this model: sides from 64, multiples of 8"):
        jobs(ModelFolder.open(SHAPES), "cpu", [size], 16, False)


def test_what_a_folder_remarks_about_itself_changes_no_job(tmp_path: Path):
    shutil.copytree(SHAPES, tmp_path / "model")
    config = tmp_path / "model" / "unet" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"_name_or_path": "elsewhere"}))
    assert jobs(ModelFolder.open(tmp_path / "model"), "cpu", [], 16, False) == jobs(
        ModelFolder.open(SHAPES), "cpu", [], 16, False
    )


@pytest.mark.parametrize("text", ["512", "512x", "x512", "512x512x3", "-8x8", "512X512", "1e3x512"])
def test_a_size_is_written_in_one_way(text: str):
    with pytest.raises(ValueError, match="expected HEIGHTxWIDTH"):
        Size.parse(text)
