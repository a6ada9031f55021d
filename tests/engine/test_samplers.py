"""Every table against the diffusers scheduler of the same name, on the same noise."""

import json
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from predictor.engine.noise import gaussian
from predictor.engine.samplers import SAMPLERS, Column, NoiseSchedule, Table, table

SHAPES = Path(__file__).parents[2] / "predictor/models/shapes"
SD15 = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "set_alpha_to_one": False,
    "steps_offset": 1,
    "clip_sample": False,
}
TWINS: dict[str, Any] = {
    "ddim": lambda config: diffusers.DDIMScheduler.from_config(config),
    "euler": lambda config: diffusers.EulerDiscreteScheduler.from_config(config),
    "euler_a": lambda config: diffusers.EulerAncestralDiscreteScheduler.from_config(config),
    "dpmpp_2m": lambda config: diffusers.DPMSolverMultistepScheduler.from_config(config),
    "dpmpp_2m_karras": lambda config: diffusers.DPMSolverMultistepScheduler.from_config(config, use_karras_sigmas=True),
    "lcm": lambda config: diffusers.LCMScheduler.from_config(config),
}
SHAPE = (4, 8, 8)


def ours(steps: Table, model: Any, seed: int, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    """A whole run of the table, as a runtime would do it."""
    latents, memory = gaussian(seed, 0, shape) * np.float32(steps.initial_scale), np.zeros(shape, np.float32)
    for i, (timestep, c) in enumerate(zip(steps.timesteps, steps.coefficients, strict=True)):
        output = model(latents, timestep)
        noise = gaussian(seed, i + 1, shape)
        following = c[Column.LATENTS] * latents + c[Column.OUTPUT] * output + c[Column.MEMORY] * memory
        memory = c[Column.DENOISED_LATENTS] * latents + c[Column.DENOISED_OUTPUT] * output
        latents = following + c[Column.NOISE] * noise
    return latents


def theirs(
    scheduler: Any, count: int, model: Any, seed: int, monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...] = SHAPE
) -> np.ndarray:
    """The same run by a diffusers scheduler that draws its fresh noise from our stream."""
    scheduler.set_timesteps(count)
    latents = torch.from_numpy(gaussian(seed, 0, shape)) * scheduler.init_noise_sigma
    step = 0

    def randn(*_: object, **__: object) -> torch.Tensor:
        return torch.from_numpy(gaussian(seed, step + 1, shape))

    monkeypatch.setattr(f"{type(scheduler).__module__}.randn_tensor", randn, raising=False)
    for step, timestep in enumerate(scheduler.timesteps):  # noqa: B007
        scaled = scheduler.scale_model_input(latents, timestep)
        output = torch.from_numpy(model(scaled.numpy(), np.float32(timestep)))
        latents = scheduler.step(output, timestep, latents, return_dict=False)[0]
    return latents.numpy()


def smooth(latents: np.ndarray, timestep: float) -> np.ndarray:
    """A model that any error in latents or timesteps shows through."""
    mixed = np.einsum("ij,jhw->ihw", np.linspace(-0.5, 0.7, 16, dtype=np.float32).reshape(4, 4), latents)
    return np.tanh(mixed + np.float32(timestep) / 1000).astype(np.float32)


@pytest.mark.parametrize("spacing", [None, "leading", "linspace", "trailing"])
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("count", [1, 2, 5, 20, 50])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_table_follows_its_twin(
    sampler: str, count: int, prediction: str, spacing: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = {**SD15, "prediction_type": prediction}
    if spacing:
        config["timestep_spacing"] = spacing
    twin = TWINS[sampler](config)
    steps = table(sampler, count, NoiseSchedule.from_config(config))
    expected = theirs(twin, count, smooth, 3, monkeypatch)
    np.testing.assert_allclose(steps.timesteps, twin.timesteps.numpy().astype(np.float32), atol=1e-3)
    scale = max(1.0, float(np.abs(expected).max()))
    assert np.abs(ours(steps, smooth, 3) - expected).max() / scale < 1e-3


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_table_follows_its_twin_on_the_demo_model(sampler: str, monkeypatch: pytest.MonkeyPatch) -> None:
    unet = diffusers.UNet2DConditionModel.from_pretrained(SHAPES, subfolder="unet").eval()
    config = json.loads((SHAPES / "scheduler/scheduler_config.json").read_text())
    side, width = unet.config.sample_size, unet.config.cross_attention_dim
    text = torch.from_numpy(gaussian(5, 0, (1, 77, width)))

    @torch.inference_mode()
    def model(latents: np.ndarray, timestep: float) -> np.ndarray:
        return unet(torch.from_numpy(latents)[None], torch.tensor([timestep]), text, return_dict=False)[0][0].numpy()

    shape = (unet.config.in_channels, side, side)
    count = 4 if sampler == "lcm" else 20
    expected = theirs(TWINS[sampler](config), count, model, 3, monkeypatch, shape)
    got = ours(table(sampler, count, NoiseSchedule.from_config(config)), model, 3, shape)
    assert np.abs(got - expected).max() < 1e-3


@given(
    st.sampled_from(sorted(SAMPLERS)),
    st.integers(1, 50),
    st.sampled_from(["epsilon", "v_prediction"]),
    st.sampled_from([None, "leading", "linspace", "trailing"]),
    st.integers(0, 2**53),
)
def test_a_perfect_model_is_followed_to_its_picture(
    sampler: str, count: int, prediction: str, spacing: str | None, seed: int
) -> None:
    config = {**SD15, "prediction_type": prediction, "set_alpha_to_one": True, "timestep_spacing": spacing}
    schedule = NoiseSchedule.from_config({key: value for key, value in config.items() if value is not None})
    steps = table(sampler, count, schedule)
    assert np.isfinite(steps.coefficients).all()
    assert (np.diff(steps.timesteps) <= 0).all()
    assert steps.timesteps.min() >= 0
    picture, latents = gaussian(seed, 0, SHAPE), gaussian(seed + 1, 0, SHAPE)
    for i in range(count):
        c = steps.coefficients[i].astype(np.float64)
        # The output that makes the denoised estimate the picture itself.
        output = (picture - c[Column.DENOISED_LATENTS] * latents) / c[Column.DENOISED_OUTPUT]
        latents = (
            c[Column.LATENTS] * latents
            + c[Column.OUTPUT] * output
            + c[Column.MEMORY] * picture * (i > 0)
            + c[Column.NOISE] * gaussian(seed, i + 1, SHAPE)
        )
    if sampler != "ddim" or (spacing or "leading") == "leading":  # DDIM ends one stride below its last timestep
        np.testing.assert_allclose(latents, picture, atol=2e-3)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("clip_sample", True),
        ("thresholding", True),
        ("prediction_type", "sample"),
        ("beta_schedule", "squaredcos_cap_v2"),
        ("rescale_betas_zero_snr", True),
        ("timestep_spacing", "random"),
    ],
)
def test_a_setting_that_would_change_pixels_is_refused_by_name(key: str, value: object) -> None:
    with pytest.raises(ValueError, match=rf"scheduler\.{key}: got {value!r}; supported: "):
        NoiseSchedule.from_config({**SD15, key: value})


@pytest.mark.parametrize("sampler", ["ddim", "dpmpp_2m", "lcm"])
def test_too_many_steps_are_refused(sampler: str) -> None:
    with pytest.raises(ValueError, match=r"got 1000 steps|got 2000 steps"):
        table(sampler, 1000 if sampler == "lcm" else 2000, NoiseSchedule.from_config(SD15))
