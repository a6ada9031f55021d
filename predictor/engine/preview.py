"""Latents → a small picture, without the decoder: one linear map from latent channels to RGB.

The maps for Stable Diffusion and SDXL were fitted by the community on decoded pictures
(discuss.huggingface.co/t/decoding-latents-to-rgb-without-upscaling/23204); a model folder may carry its own in
`latent_rgb.json`.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from predictor.engine.folder import FolderError
from predictor.engine.runtime import Floats, Pixels

SD = ((0.298, 0.207, 0.208), (0.187, 0.286, 0.173), (-0.158, 0.189, 0.264), (-0.184, -0.271, -0.473))
SDXL = ((0.3651, 0.4232, 0.4341), (-0.2533, -0.0042, 0.1068), (0.1076, 0.1111, -0.0362), (-0.3165, -0.2492, -0.2188))


class Previewer(Protocol):
    """Shows what a denoised estimate will become."""

    def picture(self, latents: Floats) -> Pixels:
        """Latents, float32 [channels, h, w] → uint8 [h, w, 3]."""
        ...


@dataclass(frozen=True)
class LatentRGB:
    """RGB in 0…1 = latents · matrix + bias; `matrix` float32 [channels, 3], `bias` float32 [3]."""

    matrix: Floats
    bias: Floats

    @classmethod
    def load(cls, folder: Path, sdxl: bool) -> "LatentRGB":
        """The folder's own map, or the one of its family."""
        own = folder / "latent_rgb.json"
        if not own.is_file():
            # The published maps give -1…1.
            return cls(np.array(SDXL if sdxl else SD, np.float32) * np.float32(0.5), np.full(3, 0.5, np.float32))
        try:
            value = json.loads(own.read_text(encoding="utf-8"))
            matrix, bias = np.array(value["matrix"], np.float32), np.array(value["bias"], np.float32)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise FolderError(f"{own}: no map from latents to RGB ({error!r})") from None
        if matrix.ndim != 2 or matrix.shape[1] != 3 or bias.shape != (3,):
            raise FolderError(f"{own}: got shapes {matrix.shape} and {bias.shape}; expected [channels, 3] and [3]")
        return cls(matrix, bias)

    def picture(self, latents: Floats) -> Pixels:
        """Latents, float32 [channels, h, w] → uint8 [h, w, 3]."""
        rgb = np.einsum("chw,cr->hwr", latents, self.matrix) + self.bias
        picture: Pixels = (np.nan_to_num(rgb).clip(0, 1) * 255).round().astype(np.uint8)
        return picture
