"""A request for the engine, and what came of it."""

from typing import Any

from predictor.core.messages import Generate
from predictor.core.request import GenerationRequest
from predictor.engine.denoiser import Event


def generate(
    id: str = "a", deadline: float = 1e12, progress: bool = False, previews: bool = False, **changes: object
) -> Generate:
    """A small request in which `changes` replaces what they name."""
    fields = {
        "prompt": "a red circle",
        "negative_prompt": "",
        "seed": 1,
        "steps": 4,
        "guidance_scale": 5.0,
        "height": 64,
        "width": 64,
        "sampler": "ddim",
        "num_images": 1,
        "truncate_prompt": False,
    }
    return Generate(id, GenerationRequest(**{**fields, **changes}), deadline, progress, previews)  # type: ignore[arg-type]


def drain(worker: Any, calls: int = 1000) -> list[Event]:
    """What the worker says until it is idle or has been called so often."""
    events: list[Event] = []
    while worker.busy and calls:
        events += worker.advance()
        calls -= 1
    return events
