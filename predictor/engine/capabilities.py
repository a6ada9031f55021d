"""What a loaded model can do, as the server and its clients are told."""

from collections.abc import Sequence
from typing import Any

import msgspec

from predictor.core.request import PARAMETERS, Capabilities, TokenRules
from predictor.engine.baked.manifest import Manifest
from predictor.engine.folder import FolderError, ModelFolder
from predictor.engine.samplers import SAMPLERS
from predictor.engine.tokens import Tokenizer
from predictor.settings import EngineSettings

SAMPLER_OF_SCHEDULER = {
    "DDIMScheduler": "ddim",
    "EulerDiscreteScheduler": "euler",
    "EulerAncestralDiscreteScheduler": "euler_a",
    "DPMSolverMultistepScheduler": "dpmpp_2m",
    "LCMScheduler": "lcm",
}
# PNDM, the scheduler in Stable Diffusion 1.x folders, keeps four outputs; DPM++ 2M needs fewer steps and one.
OTHER_SAMPLER = "dpmpp_2m"


def default_sampler(scheduler: dict[str, Any]) -> str:
    """The sampler that stands for the folder's own scheduler."""
    sampler = SAMPLER_OF_SCHEDULER.get(str(scheduler.get("_class_name")), OTHER_SAMPLER)
    return "dpmpp_2m_karras" if sampler == "dpmpp_2m" and scheduler.get("use_karras_sigmas") else sampler


def of_folder(
    folder: ModelFolder, settings: EngineSettings, tokenizers: Sequence[Tokenizer], device: str, dtype: str
) -> Capabilities:
    """Of a UNet model that runs as it is; `max_pixels` is what the settings say, and a small device may allow fewer.

    Raises:
        FolderError: a configuration does not say how large the model's pictures are.
    """
    scale = 2 ** (len(_of_config(folder, "vae", "block_out_channels")) - 1)
    native = _of_config(folder, "unet", "sample_size") * scale
    return _of_denoiser(
        folder,
        settings,
        tokenizers,
        revision=folder.revision(),
        runtime="eager",
        device=device,
        dtype=dtype,
        scale=scale,
        native=(native, native),
        max_pixels=settings.max_pixels or 4 * native * native,
        sizes=(),
    )


def of_bundle(
    manifest: Manifest, folder: ModelFolder, settings: EngineSettings, tokenizers: Sequence[Tokenizer]
) -> Capabilities:
    """Of a bundle, whose model's configuration is in `folder`."""
    sizes = tuple({(recipe.height, recipe.width): None for recipe in manifest.packages if recipe.kind == "step"})
    return _of_denoiser(
        folder,
        settings,
        tokenizers,
        revision=manifest.revision,
        runtime="baked",
        device=manifest.machine.device,
        dtype=manifest.dtype,
        scale=manifest.scale,
        native=sizes[0],
        max_pixels=settings.max_pixels or max(height * width for height, width in sizes),
        sizes=sizes,
    )


def of_pipeline(
    folder: ModelFolder, settings: EngineSettings, parameters: tuple[str, ...], side: int, device: str, dtype: str
) -> Capabilities:
    """Of any other pipeline, which takes `parameters` and draws squares of `side` pixels unless told otherwise."""
    return Capabilities(
        architecture=folder.architecture,
        revision=folder.revision(),
        runtime="pipeline",
        device=device,
        dtype=dtype,
        parameters=parameters,
        samplers=("own",),
        default_sampler="own",
        default_steps=28,
        default_guidance_scale=5.0,
        default_height=side,
        default_width=side,
        max_pixels=settings.max_pixels or 4 * side * side,
        min_side=64,
        size_multiple=16,
        max_prompt_tokens=None,
        previews=False,
        **_bounds(settings),
    )


def _of_denoiser(
    folder: ModelFolder,
    settings: EngineSettings,
    tokenizers: Sequence[Tokenizer],
    *,
    revision: str,
    runtime: str,
    device: str,
    dtype: str,
    scale: int,
    native: tuple[int, int],
    max_pixels: int,
    sizes: tuple[tuple[int, int], ...],
) -> Capabilities:
    """Of a UNet model that steps with others; `scale` in pixels per latent, `native` and `sizes` in pixels."""
    sampler = default_sampler(folder.config("scheduler"))
    return Capabilities(
        architecture=folder.architecture,
        revision=revision,
        runtime=runtime,
        device=device,
        dtype=dtype,
        parameters=tuple(PARAMETERS),
        samplers=tuple(SAMPLERS),
        default_sampler=sampler,
        default_steps=4 if sampler == "lcm" else 25,
        default_guidance_scale=1.0 if sampler == "lcm" else 7.5,
        default_height=native[0],
        default_width=native[1],
        max_pixels=max_pixels,
        min_side=8 * scale,
        size_multiple=8 * max(1, scale // 8),
        max_prompt_tokens=tokenizers[0].max_length - 2,
        previews=True,
        sizes=sizes,
        tokenizers=_rules(tokenizers),
        **_bounds(settings),
    )


def _rules(tokenizers: Sequence[Tokenizer]) -> tuple[TokenRules, ...]:
    """How all of them split text, or nothing; SDXL's two have the same merges, of which one ConfigMap holds one set."""
    rules = [tokenizer.rules for tokenizer in tokenizers if tokenizer.rules is not None]
    if len(rules) < len(tokenizers) or len({one.merges for one in rules}) > 1:
        return ()
    return (*rules[:1], *(msgspec.structs.replace(one, merges=None) for one in rules[1:]))


def _of_config(folder: ModelFolder, component: str, key: str) -> Any:
    config = folder.config(component)
    if not config.get(key):
        raise FolderError(f"{folder.path / component / 'config.json'}: {key}: missing")
    return config[key]


def _bounds(settings: EngineSettings) -> dict[str, Any]:
    return {
        "max_steps": settings.max_steps,
        "max_guidance_scale": 50.0,
        "max_images": settings.max_images,
        "max_prompt_bytes": settings.max_prompt_bytes,
    }
