"""A sampler is a table: one row of coefficients per step, and no state.

Latents are kept in the coordinates in which the models were trained, x = α·x₀ + β·ε with α² + β² = 1, also for
samplers that their papers write in the coordinates x / α; so the model's input is the latents as they are, and a row
needs nothing but its own coefficients:

    denoised     = DENOISED_LATENTS · latents + DENOISED_OUTPUT · output
    next latents = LATENTS · latents + OUTPUT · output + MEMORY · last step's denoised + NOISE · fresh noise

Each table follows the diffusers scheduler of the same name, timesteps included; the tests hold the two together.

Sources: DDIM, Song et al., arXiv 2010.02502, eq. 12; Euler and Euler ancestral, Karras et al., arXiv 2206.00364, alg.
2, and k-diffusion; DPM-Solver++(2M), Lu et al., arXiv 2211.01095, alg. 2; LCM, Luo et al., arXiv 2310.04378, alg. 3.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from predictor.engine.runtime import Floats

Doubles = NDArray[np.float64]

SAMPLERS = {
    "ddim": "DDIM, deterministic",
    "euler": "Euler, deterministic",
    "euler_a": "Euler ancestral: fresh noise at every step",
    "dpmpp_2m": "DPM-Solver++ of second order, deterministic",
    "dpmpp_2m_karras": "the same, with the noise levels of Karras et al.",
    "lcm": "for latent consistency models: 1 to 8 steps, fresh noise at every step",
}
# Where a folder does not say how timesteps are spaced, each diffusers class has its own idea.
SPACING = {
    "ddim": "leading",
    "euler": "linspace",
    "euler_a": "linspace",
    "dpmpp_2m": "linspace",
    "dpmpp_2m_karras": "linspace",
}
KARRAS_RHO = 7.0
LCM_TRAINED_STEPS = 50  # timesteps that a consistency model was distilled at
LCM_TIMESTEP_SCALING = 10.0
LCM_SIGMA_DATA = 0.5

# Settings of a scheduler that change pixels, with the values that the tables are right for; the first is what a folder
# means that says nothing. What makes one sampler another, such as use_karras_sigmas or solver_order, is not among them:
# the sampler's name decides.
SUPPORTED: dict[str, tuple[object, ...]] = {
    "prediction_type": ("epsilon", "v_prediction"),
    "beta_schedule": ("linear", "scaled_linear"),
    "timestep_spacing": ("leading", "linspace", "trailing"),
    "timestep_type": ("discrete",),
    "interpolation_type": ("linear",),
    "set_alpha_to_one": (True, False),
    "rescale_betas_zero_snr": (False,),
    "clip_sample": (False,),
    "thresholding": (False,),
    "sigma_min": (None,),
    "sigma_max": (None,),
    "sigma_data": (None,),
    "lambda_min_clipped": (-math.inf, None),
    "original_inference_steps": (LCM_TRAINED_STEPS,),
    "timestep_scaling": (LCM_TIMESTEP_SCALING,),
    "use_lu_lambdas": (False,),
    "use_exponential_sigmas": (False,),
    "use_beta_sigmas": (False,),
    "use_flow_sigmas": (False,),
    "final_sigmas_type": ("zero",),
}


class Column(IntEnum):
    """Columns of a table."""

    DENOISED_LATENTS = 0
    DENOISED_OUTPUT = 1
    LATENTS = 2
    OUTPUT = 3
    MEMORY = 4
    NOISE = 5


@dataclass(frozen=True)
class NoiseSchedule:
    """The noise that a model was trained to remove: ᾱ of each training timestep, and what the model predicts of it.

    `spacing` is None where the folder leaves it to the sampler.
    """

    alphas_cumprod: Doubles
    v_prediction: bool
    spacing: str | None
    steps_offset: int
    final_alpha_cumprod: float

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "NoiseSchedule":
        """From a diffusers scheduler_config.json.

        Raises:
            ValueError: naming a setting that would change the pixels and that no table here is right for.
        """
        for key, allowed in SUPPORTED.items():
            if config.get(key, allowed[0]) not in allowed:
                raise ValueError(f"scheduler.{key}: got {config[key]!r}; supported: {', '.join(map(repr, allowed))}")
        cumprod: Doubles = np.cumprod(1.0 - _betas(config), dtype=np.float64)
        if not 1e-12 < cumprod[-1] <= cumprod[0] < 1:
            raise ValueError(
                f"scheduler betas: got a signal of {cumprod[0]} after the first training timestep, {cumprod[-1]} after "
                "the last; allowed: less than 1, more than 1e-12"
            )
        return cls(
            alphas_cumprod=cumprod,
            v_prediction=config.get("prediction_type", "epsilon") == "v_prediction",
            spacing=config.get("timestep_spacing"),
            steps_offset=_number(config, "steps_offset", 0, int, 0, len(cumprod) - 1),
            final_alpha_cumprod=1.0 if config.get("set_alpha_to_one", True) else float(cumprod[0]),
        )

    @property
    def sigmas(self) -> Doubles:
        """β / α of each training timestep, rising."""
        return np.sqrt((1 - self.alphas_cumprod) / self.alphas_cumprod)


@dataclass(frozen=True)
class Table:
    """`timesteps` float32 [steps], as the model takes them; `coefficients` float32 [steps, len(Column)].

    `initial_scale` turns unit noise into the first latents.
    """

    timesteps: Floats
    coefficients: Floats
    initial_scale: float


def table(sampler: str, steps: int, schedule: NoiseSchedule) -> Table:
    """The table of one of `SAMPLERS`.

    Raises:
        ValueError: no such sampler, no steps, or more of them than the sampler can tell apart.
    """
    if sampler not in SAMPLERS:
        raise ValueError(f"sampler: got {sampler!r}; allowed: {', '.join(SAMPLERS)}")
    if steps < 1:
        raise ValueError(f"got {steps} steps; {sampler} needs at least 1")
    if sampler == "lcm":
        return _lcm(steps, schedule)
    trained = len(schedule.alphas_cumprod)
    if steps > trained or not _distinct(*_levels(sampler, steps, schedule), trained):
        fewer = range(min(steps, trained), 0, -1)
        limit = next((n for n in fewer if _distinct(*_levels(sampler, n, schedule), trained)), 0)
        raise ValueError(f"got {steps} steps; {sampler} allows at most {limit} with this model")
    timesteps, sigmas = _levels(sampler, steps, schedule)
    alpha, beta = _vp(sigmas[:-1])
    next_alpha, next_beta = _vp(sigmas[1:])
    if sampler == "ddim":
        # All steps of DDIM have one length, whatever the spacing; the last need not end at the cleanest level.
        previous = timesteps.astype(int) - trained // steps
        cumprod = np.where(previous >= 0, schedule.alphas_cumprod[previous], schedule.final_alpha_cumprod)
        next_alpha, next_beta = np.sqrt(cumprod), np.sqrt(1 - cumprod)
    rows = np.zeros((steps, len(Column)))
    for i in range(steps):
        keep, memory, noise = next_beta[i] / beta[i], 0.0, 0.0
        if sampler == "euler_a":
            up = sigmas[i + 1] * (1 - (sigmas[i + 1] / sigmas[i]) ** 2) ** 0.5
            down = (sigmas[i + 1] ** 2 - up**2) ** 0.5
            keep, noise = next_alpha[i] * down / beta[i], next_alpha[i] * up
        from_denoised = next_alpha[i] - keep * alpha[i]
        if sampler.startswith("dpmpp") and 0 < i < steps - 1:
            # The ratio of two steps in log-SNR; the last step, to σ = 0, is of first order.
            ratio = np.log(sigmas[i] / sigmas[i - 1]) / np.log(sigmas[i + 1] / sigmas[i])
            memory = -from_denoised / (2 * ratio)
            from_denoised -= memory
        rows[i] = _row(alpha[i], beta[i], schedule.v_prediction, keep, from_denoised, memory, noise)
    return Table(
        timesteps.astype(np.float32), rows.astype(np.float32), _initial_scale(sampler, schedule, float(beta[0]))
    )


def _levels(sampler: str, steps: int, schedule: NoiseSchedule) -> tuple[Doubles, Doubles]:
    """Timesteps [steps], falling, and σ [steps + 1], falling to zero."""
    known = schedule.sigmas
    if sampler == "dpmpp_2m_karras":
        high, low = known[-1] ** (1 / KARRAS_RHO), known[0] ** (1 / KARRAS_RHO)
        sigmas = (high + np.linspace(0, 1, steps) * (low - high)) ** KARRAS_RHO
        timesteps = np.interp(np.log(sigmas), np.log(known), np.arange(len(known))).round()
        return timesteps, np.append(sigmas, 0.0)
    timesteps = _spaced(sampler, steps, len(known), schedule)
    return timesteps, np.append(np.interp(timesteps, np.arange(len(known)), known), 0.0)


def _distinct(timesteps: Doubles, sigmas: Doubles, trained: int) -> bool:
    """Whether every step removes noise, from a timestep that the model knows."""
    return bool((np.diff(sigmas) < 0).all() and timesteps[0] <= trained - 1)


def _spaced(sampler: str, steps: int, trained: int, schedule: NoiseSchedule) -> Doubles:
    """Timesteps as the diffusers scheduler of this name spaces them (Lin et al., arXiv 2305.08891, table 2)."""
    spacing = schedule.spacing or SPACING[sampler]
    # DPM-Solver++ divides into one interval more than it has steps.
    points = steps + 1 if sampler.startswith("dpmpp") else steps
    if spacing == "linspace":
        spaced = np.linspace(0, trained - 1, points)
        spaced = spaced if sampler.startswith("euler") else spaced.round()
        return spaced[::-1][:steps]
    if spacing == "leading":
        return (np.arange(points) * (trained // points)).astype(float)[::-1][:steps] + schedule.steps_offset
    return np.arange(trained, 0, -trained / steps).round()[:steps] - 1


def _initial_scale(sampler: str, schedule: NoiseSchedule, beta: float) -> float:
    """Euler starts from pure noise of σ = β/α where its timesteps reach the last one, else from unit noise."""
    pure = sampler.startswith("euler") and (schedule.spacing or SPACING[sampler]) != "leading"
    return beta if pure else 1.0


def _lcm(steps: int, schedule: NoiseSchedule) -> Table:
    trained = len(schedule.alphas_cumprod)
    if trained < LCM_TRAINED_STEPS:
        raise ValueError(f"lcm: the model has {trained} training timesteps; needed: at least {LCM_TRAINED_STEPS}")
    origin = (np.arange(1, LCM_TRAINED_STEPS + 1) * (trained // LCM_TRAINED_STEPS) - 1)[::-1]
    if steps > len(origin):
        raise ValueError(f"got {steps} steps; lcm allows at most {len(origin)}")
    timesteps = origin[np.floor(np.linspace(0, len(origin), steps, endpoint=False)).astype(int)]
    cumprod = schedule.alphas_cumprod[timesteps]
    alpha, beta = np.sqrt(cumprod), np.sqrt(1 - cumprod)
    rows = np.zeros((steps, len(Column)))
    for i, timestep in enumerate(timesteps):
        last = i == steps - 1
        scaled = timestep * LCM_TIMESTEP_SCALING
        skip = LCM_SIGMA_DATA**2 / (scaled**2 + LCM_SIGMA_DATA**2)
        out = scaled / (scaled**2 + LCM_SIGMA_DATA**2) ** 0.5
        of_latents, of_output = _denoised(alpha[i], beta[i], schedule.v_prediction)
        of_latents, of_output = out * of_latents + skip, out * of_output
        scale = 1.0 if last else alpha[i + 1]
        noise = 0.0 if last else beta[i + 1]
        rows[i] = of_latents, of_output, scale * of_latents, scale * of_output, 0.0, noise
    return Table(timesteps.astype(np.float32), rows.astype(np.float32), 1.0)


def _betas(config: Mapping[str, Any]) -> Doubles:
    """The variance added at each training timestep, float64 [num_train_timesteps]."""
    count = _number(config, "num_train_timesteps", 1000, int, 1, 100_000)
    trained = config.get("trained_betas")
    if trained is not None:
        if not isinstance(trained, list) or len(trained) != count or not all(_between(b, float, 0, 1) for b in trained):
            raise ValueError(f"scheduler.trained_betas: got {str(trained)[:100]}; allowed: {count} numbers from 0 to 1")
        return np.array(trained, np.float64)
    first = _number(config, "beta_start", 0.0001, float, 0, 1)
    last = _number(config, "beta_end", 0.02, float, 0, 1)
    power = 2.0 if config.get("beta_schedule") == "scaled_linear" else 1.0
    betas: Doubles = np.linspace(first ** (1 / power), last ** (1 / power), count) ** power
    return betas


def _number(config: Mapping[str, Any], key: str, default: float, kind: type, low: float, high: float) -> Any:
    value = config.get(key, default)
    if not _between(value, kind, low, high):
        raise ValueError(f"scheduler.{key}: got {value!r}; allowed: {kind.__name__} from {low} to {high}")
    return value


def _between(value: object, kind: type, low: float, high: float) -> bool:
    is_number = isinstance(value, int | float if kind is float else int) and not isinstance(value, bool)
    return is_number and low <= value <= high  # type: ignore[operator]


def _vp(sigmas: Doubles) -> tuple[Doubles, Doubles]:
    """α and β of σ = β / α."""
    alpha = 1 / np.sqrt(1 + sigmas**2)
    return alpha, sigmas * alpha


def _denoised(alpha: float, beta: float, v_prediction: bool) -> tuple[float, float]:
    """Coefficients of latents and output in x₀: (x - β·ε) / α, or α·x - β·v (Salimans & Ho, arXiv 2202.00512)."""
    return (alpha, -beta) if v_prediction else (1 / alpha, -beta / alpha)


def _row(
    alpha: float, beta: float, v_prediction: bool, keep: float, from_denoised: float, memory: float, noise: float
) -> tuple[float, ...]:
    """A step `keep · x + from_denoised · x₀ + memory · last x₀ + noise`, with x₀ written out."""
    of_latents, of_output = _denoised(alpha, beta, v_prediction)
    return of_latents, of_output, keep + from_denoised * of_latents, from_denoised * of_output, memory, noise
