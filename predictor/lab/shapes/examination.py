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
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    StableDiffusionPipeline,
)
from tqdm import tqdm

from predictor.lab.shapes.arguments import above_zero, at_least
from predictor.lab.shapes.captions import compose, wordings
from predictor.lab.shapes.checker import Finding, check
from predictor.lab.shapes.drawings import SHAPES, Facts, sample_drawings

SAMPLERS: Final = {
    "ddim": (DDIMScheduler, {}),
    "euler": (EulerDiscreteScheduler, {}),
    "euler_ancestral": (EulerAncestralDiscreteScheduler, {}),
    "dpmpp_2m": (DPMSolverMultistepScheduler, {}),
    "dpmpp_2m_karras": (DPMSolverMultistepScheduler, {"use_karras_sigmas": True}),
}
"""The predictor's names of diffusers' schedulers, with what each changes in the folder's configuration."""
NEGATIVES: Final = ("red", "blue", "yellow", "black")
STEPS: Final = 20
GUIDANCE: Final = 7.5
_OTHER_GUIDANCES: Final = (1.0, 2.0, 4.0, 12.0)
_OTHER_STEPS: Final = (10, 50)

Pictures = npt.NDArray[np.uint8]


@dataclasses.dataclass(frozen=True)
class Question:
    """A prompt, what it says, and the seed of the noise."""

    prompt: str
    facts: Facts
    seed: int


@dataclasses.dataclass(frozen=True)
class Marks:
    """How many of `of` pictures showed the prompted shape, colour, background, all three; `wrong` says what else."""

    of: int
    shape: int
    colour: int
    background: int
    all: int
    wrong: tuple[str, ...]


def questions(count: int, seed: int = 0) -> list[Question]:
    """Held-out prompt/seed pairs; a prompt names size and place only when they are not the usual ones or by chance."""
    drawings = sample_drawings(seed, 2**32, count, held_out=True)
    say, unseen = random.Random(seed), wordings(held_out=True)  # noqa: S311
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
    negatives: Sequence[str] = (),
    guidance: float = GUIDANCE,
    steps: int = STEPS,
    bar: "tqdm[Any] | None" = None,
) -> Pictures:
    """One picture per prompt, uint8 [n, height, width, 3]; noise comes from the seeds, drawn on the CPU.

    `negatives` holds one text per prompt or none at all. `bar` advances by the number of prompts at each step.
    """

    def advance(_: StableDiffusionPipeline, step: int, timestep: torch.Tensor, state: dict[str, Any]) -> dict[str, Any]:
        del step, timestep
        if bar is not None:
            bar.update(len(prompts))
        return state

    pipeline.set_progress_bar_config(disable=True)
    result = pipeline(
        list(prompts),
        negative_prompt=list(negatives) or [""] * len(prompts),
        num_inference_steps=steps,
        guidance_scale=guidance,
        generator=[torch.Generator("cpu").manual_seed(seed) for seed in seeds],
        output_type="np",
        callback_on_step_end=advance,
    )
    return (np.asarray(result.images) * 255).round().astype(np.uint8)


def mark(asked: Sequence[Question], pictures: Pictures) -> Marks:
    """Compare what was asked with what the checker finds."""
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


def examine(
    pipeline: StableDiffusionPipeline, count: int, *, guidance: float = GUIDANCE, steps: int = STEPS
) -> tuple[dict[str, Any], Pictures]:
    """All figures of the model card, and the pictures behind the first of them.

    `count` prompts each are drawn with the given guidance and steps, then with other guidances, then with other steps.
    The shares say how many pictures of "a <shape>" show a colour that is their negative prompt, and how many show that
    colour without one; they are taken of `count` pictures, rounded up to a multiple of four.
    """
    asked = questions(count)
    prompts, seeds = [q.prompt for q in asked], [q.seed for q in asked]
    each = -(-count // len(NEGATIVES))
    say = random.Random(1)  # noqa: S311
    shapes = [f"a {say.choice(SHAPES)}" for _ in range(len(NEGATIVES) * each)]
    colours = [colour for colour in NEGATIVES for _ in range(each)]
    colour_seeds = [seed for _ in NEGATIVES for seed in range(each)]
    total = count * (steps * (1 + len(_OTHER_GUIDANCES)) + sum(_OTHER_STEPS)) + 2 * len(shapes) * steps
    with tqdm(total=total, desc="drawing", unit="step", mininterval=1) as bar:

        def right(guidance: float, steps: int) -> int:
            return mark(asked, draw(pipeline, prompts, seeds, guidance=guidance, steps=steps, bar=bar)).all

        def share(negatives: Sequence[str]) -> float:
            pictures = draw(
                pipeline, shapes, colour_seeds, negatives=negatives, guidance=guidance, steps=steps, bar=bar
            )
            return sum(check(picture).colour == c for picture, c in zip(pictures, colours, strict=True)) / len(shapes)

        pictures = draw(pipeline, prompts, seeds, guidance=guidance, steps=steps, bar=bar)
        figures = {
            "held_out": dataclasses.asdict(mark(asked, pictures)),
            "by_guidance": {str(other): right(other, steps) for other in _OTHER_GUIDANCES},
            "by_steps": {str(other): right(guidance, other) for other in _OTHER_STEPS},
            "negative_colour_share": share(colours),
            "same_without_negative": share(()),
        }
    return figures, pictures


def main(argv: list[str]) -> int:
    """Print the figures of the model in a folder as JSON; exit 1 when fewer than 95 % of the pictures are right."""
    parser = argparse.ArgumentParser(
        prog="sdzero check-shapes",
        description="Let the demo model draw prompts that it was not trained on, and count from the pixels alone how "
        "many pictures show the prompted shape, colour and background. Prints JSON; exits 1 below 95 %.",
        epilog="The figures include other guidances and steps, and negative prompts: nine times as many pictures as "
        "--count, about ten minutes on two CPU cores with the defaults.",
        allow_abbrev=False,
    )
    default = Path(__file__).parents[2] / "models" / "shapes"
    add = parser.add_argument
    add("--model", type=Path, default=default, help="folder in diffusers format [the demo model]")
    add("--count", type=at_least(1), default=100, help="prompt/seed pairs [%(default)s]")
    add("--sampler", choices=SAMPLERS, help="sampler of all pictures [the folder's own]")
    add("--steps", type=at_least(1), default=STEPS, help="denoising steps of a picture [%(default)s]")
    add("--guidance", type=above_zero, default=GUIDANCE, help="guidance scale; 1 is without guidance [%(default)s]")
    add("--device", default="cpu", help="torch device [%(default)s]")
    args = parser.parse_args(argv)
    if not (args.model / "model_index.json").is_file():
        parser.error(f"--model: {args.model} holds no model_index.json")
    pipeline = StableDiffusionPipeline.from_pretrained(args.model).to(args.device)
    if args.sampler:
        scheduler, changes = SAMPLERS[args.sampler]
        pipeline.scheduler = scheduler.from_config(pipeline.scheduler.config, **changes)
    figures, _ = examine(pipeline, args.count, guidance=args.guidance, steps=args.steps)
    print(json.dumps(figures, indent=1))
    return 0 if figures["held_out"]["all"] >= 0.95 * args.count else 1
