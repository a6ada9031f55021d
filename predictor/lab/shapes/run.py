"""One run of the training: its deadline, its checkpoint, its loss log, and the state of both stages."""

import argparse
import json
import sys
import time
from collections.abc import Iterator
from typing import Any, Final

import torch
from tqdm import tqdm

from predictor.lab.shapes.checkpoint import Tensors, load_checkpoint, save_checkpoint
from predictor.lab.shapes.trainer import Trainer

CLOSING_SECONDS: Final = 45.0
"""What a run with a time limit keeps for the examination and the export."""
LOG_EVERY: Final = 50

_RECIPE: Final = (
    "seed",
    "minutes",
    "vae_minutes",
    "vae_steps",
    "diffusion_minutes",
    "diffusion_steps",
    "vae_batch",
    "batch",
    "drawings",
)


def recipe(args: argparse.Namespace) -> str:
    """The options that shape the weights, as one would type them."""
    given = {name: getattr(args, name) for name in _RECIPE}
    return " ".join(f"--{name.replace('_', '-')} {value}" for name, value in given.items() if value is not None)


class Run:
    """The state of one run.

    `recipes` lists the options of all runs that shared the checkpoint, this one last. The facts and parts of a stage
    are what `Trainer.state` gives; a finished VAE has the one part `final`.
    """

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.device = torch.device(args.device)
        self.deadline = time.monotonic() + 60 * args.minutes - CLOSING_SECONDS if args.minutes else float("inf")
        self.recipes: list[str] = []
        self.losses: list[dict[str, Any]] = []
        self.vae_facts: dict[str, float] = {}
        self.vae_parts: dict[str, Tensors] = {}
        self.diffusion_facts: dict[str, float] = {}
        self.diffusion_parts: dict[str, Tensors] = {}
        self._resume()
        self.recipes.append(recipe(args))

    def _resume(self) -> None:
        if not self.args.checkpoint or not (saved := load_checkpoint(self.args.checkpoint, self.device)):
            return
        facts, parts = saved
        if facts["seed"] != self.args.seed:
            raise SystemExit(f"--seed {self.args.seed}: {self.args.checkpoint} was trained with seed {facts['seed']}")
        self.recipes, self.losses = facts["recipes"], facts["losses"]
        self.vae_facts, self.diffusion_facts = facts["vae"], facts["diffusion"]
        for name, tensors in parts.items():
            stage, _, part = name.partition("-")
            (self.vae_parts if stage == "vae" else self.diffusion_parts)[part] = tensors
        print(f"resumed: VAE {self.vae_facts}, diffusion {self.diffusion_facts}", flush=True)

    def save(self) -> None:
        """Write the checkpoint, if the run has one."""
        if not self.args.checkpoint:
            return
        facts = {
            "seed": self.args.seed,
            "recipes": self.recipes,
            "vae": self.vae_facts,
            "diffusion": self.diffusion_facts,
            "losses": self.losses,
        }
        stages = (("vae", self.vae_parts), ("diffusion", self.diffusion_parts))
        parts = {f"{stage}-{part}": tensors for stage, found in stages for part, tensors in found.items()}
        save_checkpoint(self.args.checkpoint, facts, parts)

    def random(self, stage: int, step: int) -> torch.Generator:
        """The device's random numbers for one step of one stage."""
        return torch.Generator(self.device).manual_seed((self.args.seed * 2 + stage) * 1_000_003 + step)

    def autocast(self) -> torch.autocast:
        """Bfloat16 on CUDA, nothing elsewhere."""
        # The cache of cast weights does not survive the capture of a step.
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda", cache_enabled=False)

    def ticks(self, name: str, trainer: Trainer) -> Iterator[int]:
        """Step numbers until the stage's budget or the run's time is spent, with a progress bar."""
        form = "{desc} {percentage:3.0f}% {bar:20} {elapsed}<{remaining}{postfix}"
        trainer.resume_clock()
        with tqdm(desc=name, total=1000, mininterval=20 if not sys.stderr.isatty() else 0.5, bar_format=form) as bar:
            while not trainer.done and time.monotonic() < self.deadline:
                yield trainer.steps
                bar.set_postfix(steps=trainer.steps, refresh=False)
                bar.update(int(1000 * trainer.budget.share(trainer.seconds, trainer.steps)) - bar.n)

    def log(self, stage: str, trainer: Trainer, total: torch.Tensor) -> None:
        """Note the mean of the last losses; the only place where the loop waits for the device."""
        entry = {"stage": stage, "step": trainer.steps, "seconds": round(trainer.seconds, 1)}
        self.losses.append({**entry, "loss": round(float(total) / LOG_EVERY, 6)})
        if trainer.steps % (10 * LOG_EVERY) == 0:
            print(json.dumps(self.losses[-1]), flush=True)
