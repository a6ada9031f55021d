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
from predictor.lab.bench.architectures import ARCHITECTURES

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
# Steps that a model of 1000 training timesteps and an offset of 1 tells apart.
LIMITS = {
    **{(sampler, spacing): 1000 for sampler in ("ddim", "euler", "euler_a") for spacing in ("linspace", "trailing")},
    **{(sampler, "leading"): 999 for sampler in ("ddim", "euler", "euler_a")},
    **{("dpmpp_2m_karras", spacing): 1000 for spacing in ("leading", "linspace", "trailing")},
    ("dpmpp_2m", "leading"): 998,
    ("dpmpp_2m", "linspace"): 999,
    ("dpmpp_2m", "trailing"): 1000,
    **{("lcm", spacing): 50 for spacing in ("leading", "linspace", "trailing")},
}


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
@pytest.mark.parametrize("count", [1, 2, 5, 7, 20, 50])
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


@pytest.mark.parametrize(
    "betas",
    [
        {"beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02},
        {"trained_betas": [0.001 + 0.00002 * i for i in range(500)], "num_train_timesteps": 500, "steps_offset": 0},
        {"set_alpha_to_one": True},
    ],
    ids=["linear", "trained", "alpha to one"],
)
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_table_follows_its_twin_on_other_noise(
    sampler: str, betas: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = {**SD15, **betas}
    expected = theirs(TWINS[sampler](config), 20, smooth, 3, monkeypatch)
    scale = max(1.0, float(np.abs(expected).max()))
    assert (
        np.abs(ours(table(sampler, 20, NoiseSchedule.from_config(config)), smooth, 3) - expected).max() / scale < 1e-3
    )


def levels(twin: Any, count: int) -> tuple[np.ndarray, np.ndarray]:
    """α and β of each step's latents, as diffusers has them: float64 [count]."""
    twin.set_timesteps(count)
    if hasattr(twin, "sigmas"):
        alpha = 1 / np.sqrt(1 + twin.sigmas[:-1].numpy().astype(np.float64) ** 2)
    else:
        alpha = np.sqrt(twin.alphas_cumprod[twin.timesteps].numpy().astype(np.float64))
    return alpha, np.sqrt(1 - alpha**2)


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
    config = {**SD15, "prediction_type": prediction, "set_alpha_to_one": True}
    if spacing:
        config["timestep_spacing"] = spacing
    steps = table(sampler, count, NoiseSchedule.from_config(config))
    assert np.isfinite(steps.coefficients).all()
    assert steps.timesteps.shape == (count,)
    assert (np.diff(steps.timesteps) <= 0).all()
    assert 0 <= steps.timesteps.min() <= steps.timesteps.max() < 1000
    assert not steps.coefficients[0, Column.MEMORY], "the first step has nothing to remember"
    assert not steps.coefficients[-1, Column.NOISE], "the picture would keep it"
    picture, latents, memory = gaussian(seed, 0, SHAPE), gaussian(seed + 1, 0, SHAPE), 0.0
    for i, (alpha, beta) in enumerate(zip(*levels(TWINS[sampler](config), count), strict=True)):
        c = steps.coefficients[i].astype(np.float64)
        noise = (latents - alpha * picture) / beta
        output = noise if prediction == "epsilon" else alpha * noise - beta * picture
        denoised = c[Column.DENOISED_LATENTS] * latents + c[Column.DENOISED_OUTPUT] * output
        np.testing.assert_allclose(denoised, picture, atol=2e-3)
        latents = (
            c[Column.LATENTS] * latents
            + c[Column.OUTPUT] * output
            + c[Column.MEMORY] * memory
            + c[Column.NOISE] * gaussian(seed, i + 1, SHAPE)
        )
        memory = denoised
    # DDIM ends one stride below its last timestep, which is the picture only if that is below the first.
    if sampler != "ddim" or steps.timesteps[-1] < 1000 // count:
        np.testing.assert_allclose(latents, picture, atol=2e-3)


@pytest.mark.parametrize("name", ["sd15", "sd21", "sdxl"])
def test_schedules_of_published_models_are_understood(name: str) -> None:
    config = json.loads(json.dumps(ARCHITECTURES[name].scheduler))
    assert NoiseSchedule.from_config(config).v_prediction == (name == "sd21")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("clip_sample", True),
        ("thresholding", True),
        ("prediction_type", "sample"),
        ("prediction_type", None),
        ("beta_schedule", "squaredcos_cap_v2"),
        ("rescale_betas_zero_snr", True),
        ("timestep_spacing", "random"),
        ("timestep_type", "continuous"),
        ("interpolation_type", "log_linear"),
        ("final_sigmas_type", "sigma_min"),
        ("use_flow_sigmas", True),
        ("sigma_min", 0.002),
        ("sigma_data", 0.5),
        ("lambda_min_clipped", -5.1),
        ("original_inference_steps", 100),
        ("set_alpha_to_one", "false"),
    ],
)
def test_a_setting_that_would_change_pixels_is_refused_by_name(key: str, value: object) -> None:
    with pytest.raises(ValueError, match=rf"scheduler\.{key}: got {value!r}; supported: "):
        NoiseSchedule.from_config({**SD15, key: value})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("num_train_timesteps", 0),
        ("num_train_timesteps", "1000"),
        ("beta_start", None),
        ("beta_end", 1.5),
        ("beta_end", float("nan")),
        ("steps_offset", -1),
        ("steps_offset", True),
        ("trained_betas", [0.1, 0.2]),
        ("trained_betas", ["a"] * 1000),
    ],
)
def test_a_number_out_of_range_is_refused_by_name(key: str, value: object) -> None:
    with pytest.raises(ValueError, match=rf"scheduler\.{key}: got .*; allowed: "):
        NoiseSchedule.from_config({**SD15, key: value})


@pytest.mark.parametrize("betas", [{"beta_start": 0}, {"beta_end": 0.9}])
def test_noise_without_a_finite_level_is_refused(betas: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="scheduler betas: got a signal of"):
        NoiseSchedule.from_config({**SD15, **betas})


@pytest.mark.parametrize("spacing", ["leading", "linspace", "trailing"])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_too_many_steps_are_refused_with_the_limit(sampler: str, spacing: str) -> None:
    schedule = NoiseSchedule.from_config({**SD15, "timestep_spacing": spacing})
    limit = LIMITS[sampler, spacing]
    steps = table(sampler, limit, schedule)
    assert np.isfinite(steps.coefficients).all()
    assert 0 <= steps.timesteps.min() <= steps.timesteps.max() < 1000
    with pytest.raises(ValueError, match=f"got {limit + 1} steps; {sampler} allows at most {limit}"):
        table(sampler, limit + 1, schedule)


def test_a_timestep_that_the_model_does_not_know_is_refused() -> None:
    schedule = NoiseSchedule.from_config({**SD15, "timestep_spacing": "leading", "steps_offset": 900})
    assert table("ddim", 1, schedule).timesteps.tolist() == [900]
    with pytest.raises(ValueError, match="got 2 steps; ddim allows at most 1 with this model"):
        table("ddim", 2, schedule)
    with pytest.raises(ValueError, match="got 1 steps; dpmpp_2m allows at most 0 with this model"):
        table("dpmpp_2m", 1, schedule)


def test_no_steps_and_no_such_sampler_are_refused() -> None:
    schedule = NoiseSchedule.from_config(SD15)
    for sampler in SAMPLERS:
        with pytest.raises(ValueError, match=f"got 0 steps; {sampler} needs at least 1"):
            table(sampler, 0, schedule)
    with pytest.raises(ValueError, match="sampler: got 'plms'; allowed: ddim, euler, euler_a"):
        table("plms", 20, schedule)


def test_a_model_of_few_timesteps_has_no_consistency_steps() -> None:
    with pytest.raises(ValueError, match="lcm: the model has 20 training timesteps; needed: at least 50"):
        table("lcm", 4, NoiseSchedule.from_config({**SD15, "num_train_timesteps": 20}))
