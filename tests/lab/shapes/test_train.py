"""From nothing to a folder that diffusers loads, with far too little training."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image

from predictor.cli import main
from predictor.lab.shapes.checkpoint import load_checkpoint, save_checkpoint
from predictor.lab.shapes.examination import draw

TINY = ["--device", "cpu", "--vae-steps", "2", "--vae-batch", "2", "--batch", "4", "--drawings", "8"]
TINY += ["--diffusion-steps", "2", "--examined", "1", "--glance", "1", "--save-seconds", "1e-9"]


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Steps this small wait longer for a second core, where something else keeps it busy, than they gain from it."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("one_thread")
def test_an_interrupted_training_goes_on_and_ends_in_a_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keep = ["--checkpoint", str(tmp_path / "checkpoint")]
    out = tmp_path / "model"
    # All of these 45 seconds are kept for an end that the run does not reach.
    assert main(["train-shapes", *TINY, *keep, "--out", str(out), "--minutes", "0.75"]) == 3
    assert f"continue with --checkpoint {keep[1]}" in capsys.readouterr().out
    assert not out.exists()

    assert main(["train-shapes", *TINY, *keep, "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "resumed" in said
    assert "step 2: shape" in said
    saved = load_checkpoint(tmp_path / "checkpoint", torch.device("cpu"))
    assert saved is not None
    assert saved[0]["vae"]["steps"] == saved[0]["diffusion"]["steps"] == 2

    pipeline = StableDiffusionPipeline.from_pretrained(out)
    pictures = draw(pipeline, ["a red circle", ""], [1, 2], steps=2)
    assert pictures.shape == (2, 128, 128, 3)
    assert (pictures[0] != pictures[1]).any()
    assert {path.suffix for path in out.rglob("*") if path.stat().st_size > 300_000} == {".safetensors"}
    preview = json.loads((out / "latent_rgb.json").read_text())
    assert np.shape(preview["matrix"]) == (4, 3)
    assert np.shape(preview["bias"]) == (3,)

    card = (out / "README.md").read_text(encoding="utf-8")
    assert "2 runs that shared a checkpoint" in card
    assert card.count("sdzero train-shapes --seed 0 ") == 2
    assert "--minutes 0.75 --vae-steps 2 " in card
    assert str(tmp_path) not in card
    assert "of 1** |" in card
    for picture in ("contact_sheet.png", "loss.png"):
        assert f"({picture})" in card
        Image.open(out / picture).verify()


def test_another_seed_does_not_continue_a_checkpoint(tmp_path: Path) -> None:
    facts = {"seed": 5, "recipes": [], "vae": {}, "diffusion": {}, "losses": []}
    save_checkpoint(tmp_path / "checkpoint", facts, {})
    arguments = [*TINY, "--checkpoint", str(tmp_path / "checkpoint"), "--out", str(tmp_path / "model")]
    with pytest.raises(SystemExit, match=r"--seed 6: .*checkpoint was trained with seed 5"):
        main(["train-shapes", *arguments, "--seed", "6"])


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("--examined", "0"),
        ("--glance", "-1"),
        ("--seed", "-1"),
        ("--vae-steps", "0"),
        ("--diffusion-steps", "1.5"),
        ("--vae-minutes", "0"),
        ("--minutes", "nan"),
        ("--batch", "many"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(flag: str, value: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["train-shapes", "--out", "nowhere", flag, value])
    error = capsys.readouterr().err
    assert f"argument {flag}: got '{value}'; allowed: " in error


def test_a_stage_has_one_budget(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["train-shapes", "--out", "nowhere", "--vae-minutes", "1", "--vae-steps", "1"])
    assert "not allowed with" in capsys.readouterr().err


def test_help_tells_defaults_and_units(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["train-shapes", "--help"])
    told = " ".join(capsys.readouterr().out.split())
    for part in ("over all runs, in minutes [10]", "seconds between saves [60]", "[no limit]", "[512]"):
        assert part in told
