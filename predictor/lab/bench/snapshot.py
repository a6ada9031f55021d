"""A model folder with a true architecture and random weights: right in every shape and byte, and free of licences.

Speed does not depend on what the weights are, as long as nothing overflows; pictures do. Each matrix is drawn so that
it keeps the variance of its input, and the last layer of each residual branch is drawn small, so that activations stay
near 1 through any depth (compare Zhang et al. 2019, "Fixup initialization"). Norms and biases are drawn too, so that
a runtime which binds two of them the wrong way round gives wrong pictures.
"""

import json
import math
import os
from pathlib import Path
from typing import Any, Final

import diffusers
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from predictor.lab.bench.architectures import ARCHITECTURES, Architecture, TextEncoder
from predictor.lab.bench.vocabulary import TOKENS, write_tokenizer

_BRANCH_ENDS: Final = (
    "conv2.weight",
    "to_out.0.weight",
    "proj_out.weight",
    "ff.net.2.weight",
    "out_proj.weight",
    "fc2.weight",
)
_BRANCH_GAIN: Final = 0.2
# Both follow SiLU of a unit normal, whose root mean square is 0.6: noise of about 0.9, pictures of about 0.5.
_OUTPUT_GAIN: Final = {"UNet2DConditionModel": 1.5, "AutoencoderKL": 0.85}
_ALLOWED: Final = {"text": (0.3, 3.0), "unet": (0.3, 3.0), "image": (0.1, 1.0)}


def write_snapshot(
    folder: str | os.PathLike[str], architecture: str, device: str = "cpu", seed: int = 0
) -> dict[str, float]:
    """Write a diffusers folder with fp16 safetensors; the same seed on the same kind of device gives the same weights.

    Returns:
        The standard deviation of the text embeddings, of the UNet's output and of a decoded picture, for unit noise.

    Raises:
        ValueError: no such architecture.
        ArithmeticError: an activation is not finite, or an output's deviation is outside what real models have.
    """
    if architecture not in ARCHITECTURES:
        raise ValueError(f"architecture: got {architecture!r}; allowed: {', '.join(ARCHITECTURES)}")
    shape = ARCHITECTURES[architecture]
    root = Path(folder)
    root.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator(device).manual_seed(seed)
    with torch.device(device):
        unet = UNet2DConditionModel(**shape.unet)
        vae = AutoencoderKL(**shape.vae)
        texts = [_text_model(text) for text in shape.texts]
    for model in (unet, vae, *texts):
        _draw(model.half(), generator)
    deviations = _deviations(unet, vae, texts, generator)
    _check(deviations)
    unet.save_pretrained(root / "unet")
    vae.save_pretrained(root / "vae")
    for number, (text, model) in enumerate(zip(shape.texts, texts, strict=True)):
        suffix = f"_{number + 1}" if number else ""
        _save_text_model(model, root / f"text_encoder{suffix}")
        (root / f"tokenizer{suffix}").mkdir(exist_ok=True)
        write_tokenizer(root / f"tokenizer{suffix}", text.config["vocab_size"], text.pad_token)
    (root / "scheduler").mkdir(exist_ok=True)
    _write_json(root / "scheduler" / "scheduler_config.json", shape.scheduler | _version())
    _write_json(root / "model_index.json", _index(shape))
    return deviations


def _text_model(text: TextEncoder) -> Any:
    config = CLIPTextConfig(**text.config)
    return CLIPTextModelWithProjection(config) if text.pooled else CLIPTextModel(config)


def _save_text_model(model: Any, folder: Path) -> None:
    # Published folders name these tensors `text_model.…`; what transformers itself would write depends on its version.
    prefix = "" if any(name.startswith("text_model.") for name in model.state_dict()) else "text_model."
    tensors = {prefix + name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    folder.mkdir(exist_ok=True)
    model.config.save_pretrained(folder)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


@torch.no_grad()
def _draw(model: torch.nn.Module, generator: torch.Generator) -> None:
    """Fill every parameter in place."""
    for name, parameter in model.named_parameters():
        if parameter.ndim == 1:
            centre, spread = (1.0, 0.1) if name.endswith("weight") else (0.0, 0.05)
        elif "embedding.weight" in name:
            centre, spread = 0.0, 0.3
        else:
            gain = _BRANCH_GAIN if name.endswith(_BRANCH_ENDS) else 1.0
            if name in ("conv_out.weight", "decoder.conv_out.weight"):
                gain = _OUTPUT_GAIN[type(model).__name__]
            centre, spread = 0.0, gain / math.sqrt(parameter[0].numel())
        parameter.normal_(centre, spread, generator=generator)


@torch.no_grad()
def _deviations(unet: Any, vae: Any, texts: list[Any], generator: torch.Generator) -> dict[str, float]:
    """One pass through each part, in the weights' own fp16."""
    device = generator.device

    def noise(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, device=device, dtype=torch.float16)

    ids = torch.randint(texts[0].config.vocab_size, (1, TOKENS), generator=generator, device=device)
    hidden = [text(ids, output_hidden_states=True) for text in texts]
    embeddings = torch.cat([h.last_hidden_state for h in hidden], dim=-1)
    side = unet.config.sample_size
    added = None
    if unet.config.addition_embed_type:
        sizes = torch.tensor([[side * 8.0, side * 8.0, 0.0, 0.0, side * 8.0, side * 8.0]], device=device)
        added = {"text_embeds": hidden[-1].text_embeds, "time_ids": sizes.half()}
    latents = noise(1, 4, side, side)
    predicted = unet(latents, 500, embeddings, added_cond_kwargs=added).sample
    picture = vae.decode(latents / vae.config.scaling_factor).sample
    outputs = {"text": embeddings, "unet": predicted, "image": picture}
    return {name: output.float().std().item() for name, output in outputs.items()}


def _check(deviations: dict[str, float]) -> None:
    for name, deviation in deviations.items():
        low, high = _ALLOWED[name]
        if not low <= deviation <= high:  # also refuses NaN and infinity
            raise ArithmeticError(f"snapshot: {name}: standard deviation {deviation:.3g}; allowed: {low} to {high}")


def _index(shape: Architecture) -> dict[str, Any]:
    parts: dict[str, Any] = {
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
        "scheduler": ["diffusers", shape.scheduler["_class_name"]],
    }
    for number, text in enumerate(shape.texts):
        suffix = f"_{number + 1}" if number else ""
        parts[f"text_encoder{suffix}"] = [
            "transformers",
            "CLIPTextModelWithProjection" if text.pooled else "CLIPTextModel",
        ]
        parts[f"tokenizer{suffix}"] = ["transformers", "CLIPTokenizer"]
    return {"_class_name": shape.pipeline, **_version(), **parts, **shape.extra}


def _version() -> dict[str, str]:
    return {"_diffusers_version": diffusers.__version__}


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n")
