import multiprocessing
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor

import hypothesis
import pytest

from predictor.core.request import PARAMETERS, Capabilities

# Two busy cores may take longer over one example than hypothesis likes.
hypothesis.settings.register_profile("sdzero", deadline=None)
hypothesis.settings.load_profile("sdzero")


@pytest.fixture(scope="session")
def capabilities() -> Capabilities:
    return Capabilities(
        architecture="StableDiffusionPipeline",
        revision="3f2a",
        runtime="eager",
        device="cpu",
        dtype="float32",
        parameters=tuple(PARAMETERS),
        samplers=("ddim", "euler", "dpmpp_2m"),
        default_sampler="dpmpp_2m",
        default_steps=20,
        max_steps=150,
        default_guidance_scale=5.0,
        max_guidance_scale=30.0,
        default_height=128,
        default_width=128,
        min_side=64,
        max_pixels=512 * 512,
        size_multiple=8,
        max_images=8,
        max_prompt_bytes=1000,
        max_prompt_tokens=77,
        previews=True,
    )


@pytest.fixture(scope="session")
def kserve_process() -> Iterator[Executor]:
    """Runs the functions of kserve_codec.py."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        yield pool
