"""The demo model's examination: does it draw what held-out prompts say, and what do guidance and negative prompts do?

`sdzero check-shapes` runs it on an exported folder. Combinations of shape, colour and background in the questions were
never drawn for training, their wordings were never used there.
"""

import argparse
import dataclasses
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from diffusers import StableDiffusionPipeline

from predictor.lab.shapes.captions import compose, wordings
from predictor.lab.shapes.checker import Finding, check
from predictor.lab.shapes.drawings import SHAPES, Facts, sample_drawings

Pictures = npt.NDArray[np.uint8]


@dataclasses.dataclass(frozen=True)
class Question:
    prompt: str
    facts: Facts
    seed: int


@dataclasses.dataclass(frozen=True)
class Marks:
    """How many of `of` pictures showed the prompted shape, colour, background, and all three; `wrong` says what else."""

    of: int
    shape: int
    colour: int
    background: int
    all: int
    wrong: tuple[str, ...]


def questions(count: int, seed: int = 0) -> list[Question]:
    """Held-out prompt/seed pairs; a prompt names size and place only when they are not the usual ones or by chance."""
    drawings = sample_drawings(seed, 2**32, count, held_out=True)
    say, unseen = random.Random(seed), wordings(held_out=True)
    asked = []
    for row in range(count):
        facts = drawings.facts(row)
        place = facts.place != "middle"
        prompt = compose(facts, say.choice(unseen), say, name_size=say.random() < 0.6, name_place=place)
        asked.append(Question(prompt, facts, seed=1000 * seed + row))
    return asked


def draw(
    pipeline: StableDiffusionPipeline,
    prompts: Sequence[str],
    seeds: Sequence[int],
    *,
    negative: str = "",
    guidance: float = 7.5,
    steps: int = 20,
) -> Pictures:
    """One picture per prompt, uint8 [n, height, width, 3]; noise comes from the seeds, drawn on the CPU."""
    pipeline.set_progress_bar_config(disable=True)
    result = pipeline(
        list(prompts),
        negative_prompt=[negative] * len(prompts),
        num_inference_steps=steps,
        guidance_scale=guidance,
        generator=[torch.Generator("cpu").manual_seed(seed) for seed in seeds],
        output_type="np",
    )
    return (np.asarray(result.images) * 255).round().astype(np.uint8)


def mark(asked: Sequence[Question], pictures: Pictures) -> Marks:
    found = [check(picture) for picture in pictures]
    pairs = list(zip(asked, found, strict=True))
    return Marks(
        of=len(pairs),
        shape=sum(f.shape == q.facts.shape for q, f in pairs),
        colour=sum(f.colour == q.facts.colour for q, f in pairs),
        background=sum(f.background == q.facts.background for q, f in pairs),
        all=sum(_is_right(q, f) for q, f in pairs),
        wrong=tuple(
            f"{q.prompt!r} seed {q.seed}: {f.colour} {f.shape} on {f.background}"
            for q, f in pairs
            if not _is_right(q, f)
        ),
    )


def _is_right(question: Question, finding: Finding) -> bool:
    facts = question.facts
    return (finding.shape, finding.colour, finding.background) == (facts.shape, facts.colour, facts.background)


def negative_prompt_share(pipeline: StableDiffusionPipeline, count: int, *, negative: bool) -> float:
    """Share of pictures of "a <shape>" that show the colour named as negative prompt. With `negative=False` the
    prompt is left out, which gives the share by chance."""
    say = random.Random(1)
    hits = 0
    for colour in ("red", "blue", "yellow", "black"):
        each = count // 4
        prompts = [f"a {say.choice(SHAPES)}" for _ in range(each)]
        pictures = draw(pipeline, prompts, range(each), negative=colour if negative else "")
        hits += sum(check(picture).colour == colour for picture in pictures)
    return hits / (count // 4 * 4)


def examine(pipeline: StableDiffusionPipeline, count: int) -> tuple[dict[str, Any], list[Question], Pictures]:
    """All figures of the model card, with the questions and pictures behind the first of them."""
    asked = questions(count)
    prompts, seeds = [q.prompt for q in asked], [q.seed for q in asked]
    pictures = draw(pipeline, prompts, seeds)
    figures = {
        "held_out": dataclasses.asdict(mark(asked, pictures)),
        "by_guidance": {
            str(guidance): mark(asked, draw(pipeline, prompts, seeds, guidance=guidance)).all
            for guidance in (1.0, 2.0, 4.0, 12.0)
        },
        "by_steps": {str(steps): mark(asked, draw(pipeline, prompts, seeds, steps=steps)).all for steps in (10, 50)},
        "negative_colour_share": negative_prompt_share(pipeline, count, negative=True),
        "same_without_negative": negative_prompt_share(pipeline, count, negative=False),
    }
    return figures, asked, pictures


def main(argv: Sequence[str] | None = None) -> int:
    """Print the figures of the model in a folder as JSON; exit 1 when fewer than 95 % of the pictures are right."""
    parser = argparse.ArgumentParser(prog="sdzero check-shapes", description=__doc__)
    default = Path(__file__).parents[2] / "models" / "shapes"
    parser.add_argument("--model", type=Path, default=default, help="folder in diffusers format (default: %(default)s)")
    parser.add_argument("--count", type=int, default=100, help="prompt/seed pairs (default: %(default)s)")
    parser.add_argument("--device", default="cpu", help="torch device (default: %(default)s)")
    args = parser.parse_args(argv)
    pipeline = StableDiffusionPipeline.from_pretrained(args.model, torch_dtype=torch.float32).to(args.device)
    figures, _, _ = examine(pipeline, args.count)
    print(json.dumps(figures, indent=1))
    return 0 if figures["held_out"]["all"] >= 0.95 * args.count else 1


if __name__ == "__main__":
    raise SystemExit(main())
