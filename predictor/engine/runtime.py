"""The boundary between scheduling and arithmetic: numpy goes in, numpy or opaque handles come out.

`encode`, `step` and `decode` are all that a model does; whoever implements them (`eager`, later a compiled bundle)
keeps its tensors to itself. Rows of one call share a latent shape and nothing else: each has its own step, sampler,
prompt and guidance scale. A call changes no handle that went in, so that a caller can repeat it with fewer rows.
"""

from dataclasses import dataclass
from typing import NewType, Protocol

import numpy as np
from numpy.typing import NDArray

# Device memory that belongs to the runtime and is freed when the last reference goes.
Embedding = NewType("Embedding", object)
State = NewType("State", object)

Floats = NDArray[np.float32]
Pixels = NDArray[np.uint8]
Tokens = tuple[NDArray[np.int64], ...]  # one array of ids per text encoder of the model


class DeviceFull(Exception):
    """The device had no memory for this call; its state is as before, and fewer rows may fit."""


@dataclass(slots=True)
class StepRow:
    """One image's share of a step.

    `state` is the last step's result, or the initial latents, float32 [channels, height/8, width/8], in the
    coordinates of `samplers` (unit variance). `coefficients` is one row of a sampler's table, float32 [6].
    `noise` is float32 of the latents' shape, or None if its coefficient is zero.
    """

    state: State | Floats
    embedding: Embedding
    negative: Embedding
    timestep: float
    guidance_scale: float
    coefficients: Floats
    noise: Floats | None


class Runtime(Protocol):
    """A model on a device. Calls come from one thread; each may raise DeviceFull."""

    def encode(self, prompts: list[Tokens | None]) -> list[Embedding]:
        """Prompts → embeddings. None is the absence of a prompt, for models that were trained with zeros for it."""
        ...

    def step(self, rows: list[StepRow]) -> list[State]:
        """Predict, guide, and move every row by its own sampler's coefficients."""
        ...

    def denoised(self, state: State) -> Floats:
        """The last step's estimate of the finished latents, float32 [channels, height/8, width/8]."""
        ...

    def decode(self, states: list[State]) -> list[Pixels]:
        """Latents → pictures, uint8 [height, width, 3]."""
        ...

    def capacity(self, height: int, width: int) -> int:
        """How many rows of this size (pixels) fit on the device at once, by its own estimate; 0 if not even one."""
        ...
