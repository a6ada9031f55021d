"""The committed model under examination, and the examination itself."""

import json
from pathlib import Path

import numpy as np
import pytest
from diffusers import StableDiffusionPipeline

from predictor.cli import main
from predictor.lab.shapes.checker import check
from predictor.lab.shapes.drawings import Facts, render, sample_drawings
from predictor.lab.shapes.examination import Marks, Pictures, Question, draw, mark, questions

MODEL = Path(__file__).parents[3] / "predictor" / "models" / "shapes"
PAIRS = 16


@pytest.fixture(scope="module")
def pipeline() -> StableDiffusionPipeline:
    return StableDiffusionPipeline.from_pretrained(MODEL)


def examined(pipeline: StableDiffusionPipeline, guidance: float) -> Marks:
    asked = questions(PAIRS, seed=41)
    return mark(asked, draw(pipeline, [q.prompt for q in asked], [q.seed for q in asked], guidance=guidance))


def test_the_folder_is_small_and_holds_no_pickles() -> None:
    files = [path for path in MODEL.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 10e6
    assert {path.suffix for path in files} == {".safetensors", ".json", ".txt", ".md", ".png"}
    assert len([path for path in files if path.suffix == ".safetensors"]) == 3
    card = (MODEL / "README.md").read_text(encoding="utf-8")
    for picture in MODEL.glob("*.png"):
        assert f"({picture.name})" in card


def test_it_draws_held_out_prompts_and_guidance_is_why(pipeline: StableDiffusionPipeline) -> None:
    guided, unguided = examined(pipeline, 7.5), examined(pipeline, 1.0)
    assert guided.all >= 14, guided.wrong
    assert unguided.all <= guided.all - 4


def test_a_negative_prompt_keeps_its_colour_out(pipeline: StableDiffusionPipeline) -> None:
    prompts, seeds = ["a circle"] * 8, range(8)
    free = [check(picture).colour for picture in draw(pipeline, prompts, seeds)]
    without_red = draw(pipeline, prompts, seeds, negatives=["red"] * 8)
    assert "red" not in [check(picture).colour for picture in without_red]
    # Whatever colour a seed came out in, saying no to it gives another one.
    refused = [check(picture).colour for picture in draw(pipeline, prompts, seeds, negatives=free)]
    assert not [(was, now) for was, now in zip(free, refused, strict=True) if was == now]


def painted(count: int) -> tuple[list[Question], Pictures]:
    drawings = sample_drawings(42, 0, count)
    pixels = ((render(drawings) + 1) * 127.5).round().byte().permute(0, 2, 3, 1)
    return [Question(f"prompt {row}", drawings.facts(row), row) for row in range(count)], pixels.numpy()


def test_marks_count_what_is_right() -> None:
    asked, pictures = painted(6)
    assert mark(asked, pictures) == Marks(6, 6, 6, 6, 6, ())
    facts = asked[0].facts
    other = "star" if facts.shape != "star" else "ring"
    asked[0] = Question("prompt 0", Facts(other, facts.colour, facts.background, facts.size, facts.place), 0)
    marks = mark(asked, pictures)
    assert (marks.shape, marks.colour, marks.background, marks.all) == (5, 6, 6, 5)
    assert marks.wrong == (f"'prompt 0' seed 0: {facts.colour} {facts.shape} on {facts.background}",)


def test_noise_comes_from_the_seed_alone(pipeline: StableDiffusionPipeline) -> None:
    prompts = ["a small red circle on a blue background"] * 3
    pictures = draw(pipeline, prompts, [1, 1, 2], steps=2)
    alone = draw(pipeline, prompts[:1], [1], steps=2)
    np.testing.assert_allclose(pictures[0].astype(int), pictures[1], atol=2)
    np.testing.assert_allclose(pictures[0].astype(int), alone[0], atol=2)
    assert (pictures[0] != pictures[2]).any()


def test_the_command_prints_figures_and_says_whether_they_are_good(capsys: pytest.CaptureFixture[str]) -> None:
    status = main(["check-shapes", "--count", "1", "--steps", "2", "--guidance", "3", "--sampler", "dpmpp_2m_karras"])
    out, err = capsys.readouterr()
    figures = json.loads(out)
    assert figures["held_out"]["of"] == 1
    assert status == (0 if figures["held_out"]["all"] == 1 else 1)
    assert set(figures["by_guidance"]) == {"1.0", "2.0", "4.0", "12.0"}
    assert set(figures["by_steps"]) == {"10", "50"}
    assert 0 <= figures["negative_colour_share"] <= 1
    assert "100%" in err


def test_a_folder_that_is_no_model_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["check-shapes", "--model", str(tmp_path)])
    assert f"--model: {tmp_path} holds no model_index.json" in capsys.readouterr().err


def test_help_tells_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["check-shapes", "--help"])
    told = " ".join(capsys.readouterr().out.split())
    for part in ("prompt/seed pairs [100]", "denoising steps of a picture [20]", "exits 1 below 95 %"):
        assert part in told
