"""The four parts of the demo model and their export as a Stable Diffusion folder of at most 10 MB."""

import json
from pathlib import Path
from typing import Final

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from predictor.lab.shapes.bpe import TOKENS, write_tokenizer
from predictor.lab.shapes.captions import vocabulary
from predictor.lab.shapes.drawings import PIXELS

TEXT_WIDTH: Final = 96
LATENT_PIXELS: Final = PIXELS // 8


def new_tokenizer(folder: Path) -> CLIPTokenizer:
    """The tokenizer learned from the words of the captions; its files are written into `folder`."""
    write_tokenizer(vocabulary(), folder)
    return CLIPTokenizer.from_pretrained(folder)


def new_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """CLIP's text encoder, three layers of width 96."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=TEXT_WIDTH,
            intermediate_size=4 * TEXT_WIDTH,
            projection_dim=TEXT_WIDTH,
            num_hidden_layers=3,
            num_attention_heads=4,
            max_position_embeddings=TOKENS,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def new_vae() -> AutoencoderKL:
    """Stable Diffusion's VAE, narrower: float [n, 3, 128, 128] in -1..1 ↔ latents [n, 4, 16, 16]."""
    return AutoencoderKL(
        block_out_channels=(32, 32, 64, 64),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=16,
        sample_size=PIXELS,
    )


def new_unet() -> UNet2DConditionModel:
    """Stable Diffusion's UNet with two levels of width 64 and 96."""
    # attention_head_dim is the number of heads: diffusers keeps the misnomer of the first Stable Diffusion configs.
    return UNet2DConditionModel(
        sample_size=LATENT_PIXELS,
        block_out_channels=(64, 96),
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        layers_per_block=1,
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=4,
        norm_num_groups=16,
    )


def new_scheduler() -> DDIMScheduler:
    """Stable Diffusion's noise schedule, epsilon prediction.

    Sampling starts at the last training timestep (Lin et al., arXiv 2305.08891, section 3.3): starting below it, as
    Stable Diffusion does, takes pure noise for a picture of mean brightness, and backgrounds come out grey.
    """
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        num_train_timesteps=1000,
        prediction_type="epsilon",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        timestep_spacing="trailing",
    )


def new_pipeline(
    vae: AutoencoderKL, unet: UNet2DConditionModel, text_encoder: CLIPTextModel, tokenizer: CLIPTokenizer
) -> StableDiffusionPipeline:
    """The parts as one pipeline, without a safety checker."""
    return StableDiffusionPipeline(
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=new_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


@torch.no_grad()
def centre_latents(vae: AutoencoderKL, means: torch.Tensor) -> None:
    """Give every latent channel mean 0 and the same spread, and set `scaling_factor` to bring that spread to 1.

    The affine map is folded into the 1x1 convolutions around the latents, so pictures stay the same. `means`: posterior
    means of many drawings, float [n, 4, h, w]. Without this a sampler that starts from zero-mean noise would first have
    to find the mean colour of all drawings.
    """
    offset, spread = means.mean((0, 2, 3)), means.std((0, 2, 3))
    common = spread.mean()
    gain = common / spread
    channels = len(gain)
    into, out = vae.quant_conv, vae.post_quant_conv
    into.weight[:channels] *= gain[:, None, None, None]
    into.bias[:channels] = (into.bias[:channels] - offset) * gain
    into.bias[channels:] += 2 * gain.log()
    out.bias += (out.weight[:, :, 0, 0] * offset).sum(1)
    out.weight /= gain[None, :, None, None]
    vae.register_to_config(scaling_factor=round(float(1 / common), 6))


@torch.no_grad()
def fit_latent_rgb(latents: torch.Tensor, pictures: torch.Tensor) -> dict[str, list[float] | list[list[float]]]:
    """Least squares from scaled latents [n, 4, h, w] to the mean RGB in 0..1 of the 8x8 pixels below each of them.

    `pictures`: float [n, 3, 8h, 8w] in -1..1. Returns `matrix` (4 rows of 3) and `bias` (3).
    """
    colours = torch.nn.functional.avg_pool2d((pictures.float() + 1) / 2, 8)
    rows = latents.float().movedim(1, -1).reshape(-1, 4)
    rows = torch.cat([rows, torch.ones_like(rows[:, :1])], dim=1).double().cpu()
    solution = torch.linalg.lstsq(rows, colours.movedim(1, -1).reshape(-1, 3).double().cpu()).solution
    numbers = [[round(value, 5) for value in row] for row in solution.tolist()]
    return {"matrix": numbers[:4], "bias": numbers[4]}


def export(
    pipeline: StableDiffusionPipeline, latent_rgb: dict[str, list[float] | list[list[float]]], folder: Path
) -> None:
    """Write the pipeline as safetensors, the tokenizer in both of CLIP's formats, and `latent_rgb.json`.

    UNet and VAE are stored in fp16. The text encoder stays in fp32: transformers loads weights in the type they are
    stored in, diffusers in fp32, and `from_pretrained` without a dtype would join the two in one pipeline.
    """
    pipeline.unet.half()
    pipeline.vae.half()
    pipeline.text_encoder.float()
    pipeline.save_pretrained(folder, safe_serialization=True)
    write_tokenizer(vocabulary(), folder / "tokenizer")
    pipeline.tokenizer.save_pretrained(folder / "tokenizer")
    (folder / "latent_rgb.json").write_text(json.dumps(latent_rgb, indent=1) + "\n", encoding="utf-8")
