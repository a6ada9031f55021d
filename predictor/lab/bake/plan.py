"""Which packages a bundle needs: one `Job` each, which holds all that its code depends on besides the machine.

A job knows configurations and sizes but no weights, so that two checkpoints of one architecture have equal jobs.
"""

import re
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from predictor.engine.baked.manifest import Dtype, Kind
from predictor.engine.folder import FolderError, ModelFolder

MAX_ROWS = 31  # from 64 evaluations on, diffusers' upsampling takes another path, which one package cannot also hold
# What a configuration says about itself; it changes no arithmetic.
REMARKS = ("architectures", "dtype", "torch_dtype", "transformers_version")


class Job(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One package to compile.

    `images` and `evaluations` are ranges, both ends included: images of one call, and rows of the UNet (where it is no
    step, as many). `dtype` is that of the part's modules, `hidden_dtype` that of the text's hidden states.
    """

    name: str
    kind: Kind
    device: str
    dtype: Dtype
    height: int  # pixels; 0 for text
    width: int
    images: tuple[int, int]
    evaluations: tuple[int, int]
    configs: dict[str, dict[str, Any]]  # of the components that it runs, by their name in the model folder
    projected: tuple[str, ...]  # text encoders that project their pooled output
    channels: int  # of the latents
    scale: int  # pixels per latent
    tokens: int
    hidden: int  # width of the text's hidden states
    pooled: int  # width of SDXL's pooled text, or 0
    hidden_dtype: Literal["float16", "float32"]
    autotune: bool

    @property
    def latents(self) -> tuple[int, int, int]:
        """Shape of one image's latents: channels, height, width."""
        return self.channels, self.height // self.scale, self.width // self.scale


@dataclass(frozen=True)
class Size:
    """Pixels."""

    height: int
    width: int

    @classmethod
    def parse(cls, text: str) -> "Size":
        """`HEIGHTxWIDTH`. Raises ValueError."""
        found = re.fullmatch(r"(\d{1,5})x(\d{1,5})", text)
        if not found:
            raise ValueError(f"got {text!r}; expected HEIGHTxWIDTH in pixels, such as 512x768")
        return cls(int(found[1]), int(found[2]))

    def __str__(self) -> str:
        return f"{self.height}x{self.width}"


def jobs(folder: ModelFolder, device: str, sizes: list[Size], max_rows: int, autotune: bool) -> list[Job]:
    """The packages for each of `sizes`, the native one if there are none; those that compile longest come first.

    Raises:
        FolderError: a size that the model cannot draw, or a component's configuration that cannot be read.
    """
    unet, vae = folder.config("unet"), folder.config("vae")
    encoders = text_encoders(folder)
    texts = {name: folder.config(name) for name in encoders}
    projected = tuple(name for name in encoders if str(folder.index[name][1]).endswith("Projection"))
    xl = unet.get("addition_embed_type") == "text_time"
    scale = 2 ** (len(vae["block_out_channels"]) - 1)
    dtype: Literal["float16", "float32"] = "float16" if device == "cuda" else "float32"
    # SDXL's decoder overflows in half precision, and its folder says so; in folders of older models it is a default.
    vae_dtype: Literal["float16", "float32"] = "float32" if xl and vae.get("force_upcast") else dtype

    def job(kind: Kind, count: str, size: Size | None, images: tuple[int, int], **own: Any) -> Job:
        words = [kind, str(size) if size else "", count]
        fields: dict[str, Any] = {
            "name": "-".join(word for word in words if word),
            "kind": kind,
            "device": device,
            "dtype": dtype,
            "height": size.height if size else 0,
            "width": size.width if size else 0,
            "images": images,
            "evaluations": images,
            "projected": (),
            "channels": unet.get("in_channels", 4),
            "scale": scale,
            "tokens": texts[encoders[0]].get("max_position_embeddings", 77),
            "hidden": sum(config["hidden_size"] for config in texts.values()),
            "pooled": texts[encoders[-1]]["projection_dim"] if xl else 0,
            "hidden_dtype": dtype,
            "autotune": autotune,
        }
        return Job(**fields | own)

    native = Size(unet["sample_size"] * scale, unet["sample_size"] * scale)
    sizes = list(dict.fromkeys(sizes)) or [native]
    for size in sizes:
        _refuse_undrawable(size, scale)
    steps, decoders = [], []
    for size in sizes:
        step = {"configs": {"unet": _essence(unet)}}
        if max_rows > 1:
            steps.append(job("step", "n", size, (2, max_rows), evaluations=(2, 2 * max_rows), **step))
        steps.append(job("step", "1", size, (1, 1), evaluations=(2, 2), **step))
        decoders.append(job("decode", "", size, (1, 1), configs={"vae": _essence(vae)}, dtype=vae_dtype))
        decoders.append(job("preview", "", size, (1, 1), configs={}, dtype="float32"))
    configs = {name: _essence(config) for name, config in texts.items()}
    return [*steps, *decoders, job("text", "", None, (1, 1), configs=configs, projected=projected)]


def text_encoders(folder: ModelFolder) -> list[str]:
    """Names of the components that encode text, in the order in which their outputs are joined."""
    return [name for name in ("text_encoder", "text_encoder_2") if name in folder.components]


def _essence(config: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in config.items() if not key.startswith("_") and key not in REMARKS}


def _refuse_undrawable(size: Size, scale: int) -> None:
    least, multiple = 8 * scale, 8 * max(1, scale // 8)
    if min(size.height, size.width) < least or size.height % multiple or size.width % multiple:
        raise FolderError(f"--size {size}: allowed for this model: sides from {least}, multiples of {multiple}")
