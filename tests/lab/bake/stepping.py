"""Rows of the eager runtime, and the same rows as a step package takes them."""

from typing import Any

import numpy as np
import torch

from predictor.engine.runtime import StepRow
from predictor.engine.samplers import Column
from tests.lab.bake.conftest import SIDE


def random_rows(runtime: Any, rng: np.random.Generator, guidance: list[float]) -> list[StepRow]:
    """A row per guidance scale, at a step of its own, each with prompts, noise and coefficients of its own."""
    shape = (runtime.channels, SIDE // runtime.scale, SIDE // runtime.scale)

    def normal() -> np.ndarray:
        return rng.standard_normal(shape, dtype=np.float32)

    def prompt() -> Any:
        return runtime.encode([tuple(rng.integers(0, 2000, 77) for _ in runtime.text_encoders)])[0]

    rows = []
    for scale in guidance:
        coefficients = rng.standard_normal(len(Column)).astype(np.float32)
        (begun,) = runtime.step([StepRow(normal(), prompt(), prompt(), 900.0, 1.0, coefficients, None)])
        rows.append(
            StepRow(begun, prompt(), prompt(), float(rng.integers(1000)), scale, coefficients[::-1].copy(), normal())
        )
    return rows


def step_inputs(rows: list[StepRow], xl: bool) -> list[torch.Tensor]:
    """The package's arguments: a row whose guidance is off has one evaluation, the others two."""
    image: list[int] = []
    positive: list[int] = []
    negative: list[int] = []
    prompts: list[Any] = []
    for number, row in enumerate(rows):
        positive.append(len(prompts))
        prompts.append(row.embedding)
        image.append(number)
        if row.guidance_scale != 1.0:
            prompts.append(row.negative)
            image.append(number)
        negative.append(len(prompts) - 1)
    states: list[Any] = [row.state for row in rows]
    scalars = [[*row.coefficients, row.timestep, row.guidance_scale] for row in rows]
    inputs = [torch.stack([state.latents for state in states]), torch.stack([state.denoised for state in states])]
    inputs.append(torch.from_numpy(np.stack([row.noise for row in rows if row.noise is not None])))
    inputs.append(torch.tensor(np.array(scalars, np.float32)))
    inputs.append(torch.stack([prompt.hidden for prompt in prompts]))
    if xl:
        inputs.append(torch.stack([prompt.pooled for prompt in prompts]))
    return inputs + [torch.tensor(index) for index in (image, positive, negative)]
