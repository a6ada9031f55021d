"""The shapes of the models that the benchmark measures, as their published configuration files give them.

`sd15` is runwayml/stable-diffusion-v1-5, `sd21` stabilityai/stable-diffusion-2-1 (768 pixels, v prediction), `sdxl`
stabilityai/stable-diffusion-xl-base-1.0. The `tiny-` ones have the same parts, wired the same way, in a few MB and
128 pixels, so that a CPU can run what a GPU will.
"""

from dataclasses import dataclass
from typing import Any, Final

Config = dict[str, Any]


@dataclass(frozen=True)
class TextEncoder:
    """One CLIP text model and its tokenizer; `pooled` adds the projection that SDXL conditions on."""

    config: Config
    pad_token: str
    pooled: bool = False


@dataclass(frozen=True)
class Architecture:
    """A diffusers text-to-image pipeline: class names and constructor arguments of its parts."""

    pipeline: str
    unet: Config
    vae: Config
    texts: tuple[TextEncoder, ...]
    scheduler: Config
    extra: Config  # further entries of model_index.json


def _clip(hidden: int, layers: int, heads: int, act: str, projection: int, vocabulary: int = 49408) -> Config:
    return {
        "vocab_size": vocabulary,
        "hidden_size": hidden,
        "intermediate_size": 4 * hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "hidden_act": act,
        "projection_dim": projection,
        "max_position_embeddings": 77,
        # As published: 2 is not the id of <|endoftext|>, and tells transformers to pool at the largest id instead.
        "bos_token_id": 0,
        "eos_token_id": 2,
        "pad_token_id": 1,
    }


def _vae(channels: tuple[int, ...], layers: int, pixels: int, scaling_factor: float, force_upcast: bool) -> Config:
    return {
        "block_out_channels": channels,
        "down_block_types": ("DownEncoderBlock2D",) * len(channels),
        "up_block_types": ("UpDecoderBlock2D",) * len(channels),
        "layers_per_block": layers,
        "latent_channels": 4,
        "sample_size": pixels,
        "scaling_factor": scaling_factor,
        "force_upcast": force_upcast,
    }


_BETAS: Final[Config] = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "steps_offset": 1,
    "trained_betas": None,
    "timestep_spacing": "leading",
    "set_alpha_to_one": False,
    "clip_sample": False,
}
_PNDM: Final[Config] = _BETAS | {
    "_class_name": "PNDMScheduler",
    "prediction_type": "epsilon",
    "skip_prk_steps": True,
}
_DDIM_V: Final[Config] = _BETAS | {
    "_class_name": "DDIMScheduler",
    "prediction_type": "v_prediction",
}
_EULER: Final[Config] = _BETAS | {
    "_class_name": "EulerDiscreteScheduler",
    "prediction_type": "epsilon",
    "interpolation_type": "linear",
    "use_karras_sigmas": False,
    "sample_max_value": 1.0,
    "skip_prk_steps": True,
}
_NO_CHECKER: Final[Config] = {
    "safety_checker": [None, None],
    "feature_extractor": [None, None],
    "requires_safety_checker": False,
}
_END: Final = "<|endoftext|>"
_XL_BLOCKS: Final[Config] = {
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
}
_SD_VAE: Final = (128, 256, 512, 512)
_TINY: Final = 2048  # words in a tiny model's vocabulary

ARCHITECTURES: Final[dict[str, Architecture]] = {
    "sd15": Architecture(
        "StableDiffusionPipeline",
        {
            "sample_size": 64,
            "block_out_channels": (320, 640, 1280, 1280),
            "attention_head_dim": 8,
            "cross_attention_dim": 768,
        },
        _vae(_SD_VAE, 2, 512, 0.18215, force_upcast=True),
        (TextEncoder(_clip(768, 12, 12, "quick_gelu", 768), _END),),
        _PNDM,
        _NO_CHECKER,
    ),
    "sd21": Architecture(
        "StableDiffusionPipeline",
        {
            "sample_size": 96,
            "block_out_channels": (320, 640, 1280, 1280),
            "attention_head_dim": (5, 10, 20, 20),
            "cross_attention_dim": 1024,
            "use_linear_projection": True,
            "upcast_attention": True,
        },
        _vae(_SD_VAE, 2, 768, 0.18215, force_upcast=True),
        (TextEncoder(_clip(1024, 23, 16, "gelu", 512), "!"),),
        _DDIM_V,
        _NO_CHECKER,
    ),
    "sdxl": Architecture(
        "StableDiffusionXLPipeline",
        _XL_BLOCKS
        | {
            "sample_size": 128,
            "block_out_channels": (320, 640, 1280),
            "transformer_layers_per_block": (1, 2, 10),
            "attention_head_dim": (5, 10, 20),
            "cross_attention_dim": 2048,
            "addition_time_embed_dim": 256,
            "projection_class_embeddings_input_dim": 2816,
        },
        _vae(_SD_VAE, 2, 1024, 0.13025, force_upcast=True),
        (
            TextEncoder(_clip(768, 12, 12, "quick_gelu", 768), _END),
            TextEncoder(_clip(1280, 32, 20, "gelu", 1280), "!", pooled=True),
        ),
        _EULER,
        {"force_zeros_for_empty_prompt": True},
    ),
    "tiny-sd15": Architecture(
        "StableDiffusionPipeline",
        {
            "sample_size": 16,
            "block_out_channels": (32, 64, 64, 64),
            "layers_per_block": 1,
            "attention_head_dim": 4,
            "cross_attention_dim": 32,
        },
        _vae((32, 32, 64, 64), 1, 128, 0.18215, force_upcast=True),
        (TextEncoder(_clip(32, 2, 4, "quick_gelu", 32, _TINY), _END),),
        _PNDM,
        _NO_CHECKER,
    ),
    "tiny-sd21": Architecture(
        "StableDiffusionPipeline",
        {
            "sample_size": 16,
            "block_out_channels": (32, 64, 64, 64),
            "layers_per_block": 1,
            "attention_head_dim": (2, 4, 4, 4),
            "cross_attention_dim": 32,
            "use_linear_projection": True,
            "upcast_attention": True,
        },
        _vae((32, 32, 64, 64), 1, 128, 0.18215, force_upcast=True),
        (TextEncoder(_clip(32, 2, 4, "gelu", 32, _TINY), "!"),),
        _DDIM_V,
        _NO_CHECKER,
    ),
    "tiny-sdxl": Architecture(
        "StableDiffusionXLPipeline",
        _XL_BLOCKS
        | {
            "sample_size": 16,
            "block_out_channels": (32, 64, 64),
            "layers_per_block": 1,
            "transformer_layers_per_block": (1, 1, 2),
            "attention_head_dim": (2, 4, 4),
            "cross_attention_dim": 64,
            "addition_time_embed_dim": 8,
            "projection_class_embeddings_input_dim": 80,  # 32 pooled + 6 sizes x 8
        },
        _vae((32, 32, 64, 64), 1, 128, 0.13025, force_upcast=True),
        (
            TextEncoder(_clip(32, 2, 4, "quick_gelu", 32, _TINY), _END),
            TextEncoder(_clip(32, 3, 4, "gelu", 32, _TINY), "!", pooled=True),
        ),
        _EULER,
        {"force_zeros_for_empty_prompt": True},
    ),
}
