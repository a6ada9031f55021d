"""Previews have the colours of the pictures that they announce, which a linear map does not give for the demo model."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional

from predictor.core.messages import Finished
from predictor.engine.folder import ModelFolder
from predictor.engine.load import load
from predictor.engine.preview import LatentRGB
from predictor.lab.bake.preview import PreviewDecoder, PreviewError, fit_preview, load_teacher
from predictor.lab.shapes.checker import name_colour
from predictor.settings import EngineSettings
from tests.engine.asking import drain, generate

CPU = torch.device("cpu")
STEPS = 20
PROMPTS = {
    "a red circle on a white background": "white",
    "an orange square on a blue background": "blue",
    "a cyan triangle on a black background": "black",
    "a purple cross on a green background": "green",
    "a black square on a yellow background": "yellow",
    "a red square on a green background": "green",
    "a white circle on a blue background": "blue",
}
COLOURFUL = 64  # levels between a pixel's strongest and weakest primary, from which on it has a hue to speak of


@dataclass(frozen=True)
class Made:
    """What a client could have seen of one generation."""

    estimates: np.ndarray  # float32 [steps, channels, h, w]
    picture: np.ndarray  # the finished one, reduced to float32 [h, w, 3] in 0…255


class Kept:
    """Stands where the denoiser has its preview map, and keeps the estimates that it is asked to show."""

    def __init__(self) -> None:
        self.estimates: list[np.ndarray] = []

    def picture(self, latents: np.ndarray) -> np.ndarray:
        self.estimates.append(latents.copy())
        return np.zeros((1, 1, 3), np.uint8)


@pytest.fixture(scope="module")
def made(demo_model: Path) -> dict[str, Made]:
    worker: Any = load(EngineSettings(model=str(demo_model), device="cpu", threads=1), lambda *_: None)[0]
    found = {}
    for prompt in PROMPTS:
        worker.previewer = kept = Kept()
        wanted = {"steps": STEPS, "sampler": "dpmpp_2m", "height": 128, "width": 128}
        worker.add(generate(prompt=prompt, progress=True, previews=True, **wanted))
        (picture,) = next(pictures for message, pictures in drain(worker) if isinstance(message, Finished))
        reduced = functional.avg_pool2d(torch.from_numpy(picture).permute(2, 0, 1).float(), 8)
        found[prompt] = Made(np.stack(kept.estimates), reduced.permute(1, 2, 0).numpy())
    return found


@pytest.fixture(scope="module")
def teacher(demo_model: Path) -> Any:
    return load_teacher(ModelFolder.open(demo_model), half=False).float()


@pytest.fixture(scope="module")
def fitted(teacher: Any) -> PreviewDecoder:
    return fit_preview(teacher, CPU, seed=0)


@pytest.fixture(scope="module")
def linear(demo_model: Path) -> LatentRGB:
    return LatentRGB.load(demo_model, sdxl=False)


def shown(decoder: PreviewDecoder, latents: np.ndarray) -> np.ndarray:
    picture: np.ndarray = decoder(torch.from_numpy(latents)[None])[0].numpy()
    return picture


def hue(picture: np.ndarray) -> np.ndarray:
    """Degrees."""
    red, green, blue = np.moveaxis(picture.astype(float), -1, 0)
    return np.degrees(np.arctan2(np.sqrt(3) / 2 * (green - blue), red - (green + blue) / 2))


def hue_error(pictures: list[tuple[np.ndarray, np.ndarray]]) -> float:
    """Mean degrees between (shown, right), where the right one is colourful."""
    errors = []
    for seen, right in pictures:
        colourful = np.ptp(right, axis=2) > COLOURFUL
        errors.append(np.abs((hue(seen) - hue(right) + 180) % 360 - 180)[colourful])
    return float(np.concatenate(errors).mean())


def decibels(pictures: list[tuple[np.ndarray, np.ndarray]]) -> float:
    """Mean peak signal-to-noise ratio of (shown, right)."""
    return float(np.mean([20 * np.log10(255 / np.sqrt(((seen - right) ** 2).mean())) for seen, right in pictures]))


@pytest.mark.parametrize("step", [STEPS // 2, STEPS - 1])
def test_previews_are_much_closer_to_the_picture_than_a_linear_map(made, fitted, linear, step) -> None:
    ours = [(shown(fitted, one.estimates[step]), one.picture) for one in made.values()]
    mapped = [(linear.picture(one.estimates[step]), one.picture) for one in made.values()]
    assert hue_error(ours) < hue_error(mapped) / 2
    assert decibels(ours) > decibels(mapped) + 6


@pytest.mark.parametrize(("prompt", "background"), PROMPTS.items())
def test_the_background_has_the_colour_of_the_prompt(made, fitted, prompt, background) -> None:
    preview = shown(fitted, made[prompt].estimates[-1])
    border = np.concatenate([preview[0], preview[-1], preview[:, 0], preview[:, -1]]).astype(float)
    assert name_colour(np.median(border, axis=0)) == background


def test_the_same_seed_gives_the_same_decoder(teacher) -> None:
    first, second, other = (fit_preview(teacher, CPU, seed, count=2, updates=3).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["enter.weight"], other["enter.weight"])


def test_it_is_exported_with_all_of_its_weights(teacher) -> None:
    decoder = fit_preview(teacher, CPU, 1, count=2, updates=3)
    latents = torch.randn(1, 4, 24, 16, generator=torch.Generator().manual_seed(1))
    exported = torch.export.export(decoder, (latents,))
    picture = exported.module()(latents)
    assert (picture.dtype, picture.shape, picture.is_contiguous()) == (torch.uint8, (1, 24, 16, 3), True)
    assert torch.equal(picture, decoder(latents))
    assert set(exported.state_dict) == set(decoder.state_dict())


def test_latents_that_are_no_numbers_are_shown_black() -> None:
    assert PreviewDecoder(4)(torch.full((1, 4, 8, 8), torch.nan)).eq(0).all()


def test_files_without_an_encoder_are_said_to_lack_it(small: Callable[..., Path], caplog) -> None:
    folder = ModelFolder.open(small("small-sd", seed=7))
    (path,) = folder.weights("vae", False)
    whole = load_file(path)
    save_file({name: t for name, t in whole.items() if not name.startswith(("encoder.", "quant_conv."))}, path)
    with caplog.at_level(logging.WARNING):
        decoder = fit_preview(load_teacher(folder, half=False), CPU, 1, count=2, updates=3)
    assert "hold no encoder" in caplog.text
    assert decoder(torch.zeros(1, 4, 16, 16)).shape == (1, 16, 16, 3)


def test_a_vae_that_overflows_is_refused(small: Callable[..., Path]) -> None:
    vae = load_teacher(ModelFolder.open(small("small-sd")), half=False).float()
    vae.decoder.conv_out.bias = torch.nn.Parameter(torch.full((3,), torch.nan), requires_grad=False)
    with pytest.raises(PreviewError, match=r"finite numbers for 0 of 8 lessons in torch\.float32"):
        fit_preview(vae, CPU, 1, count=2, updates=3)
