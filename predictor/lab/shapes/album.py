"""The diffusion stage's training set on the device: latents of many drawings, token ids of several captions each."""

import dataclasses

import numpy as np
import torch
from diffusers import AutoencoderKL
from transformers import CLIPTokenizer

from predictor.lab.shapes.bpe import TOKENS
from predictor.lab.shapes.captions import captions
from predictor.lab.shapes.drawings import render, sample_drawings

CAPTIONS_EACH = 4
_CHUNK = 256


class CaptionEncoder:
    """Caption → token ids, start and end included.

    Words are looked up once: millions of captions consist of a hundred words, and CLIP's pre-tokenizer never looks
    across a space.
    """

    def __init__(self, tokenizer: CLIPTokenizer) -> None:
        self._tokenizer = tokenizer
        self._words: dict[str, list[int]] = {}

    def encode(self, caption: str) -> list[int]:
        """77 ids, cut or padded with the end."""
        ids = [self._tokenizer.bos_token_id]
        for word in caption.split():
            if word not in self._words:
                self._words[word] = self._tokenizer(word, add_special_tokens=False).input_ids
            ids += self._words[word]
        end = [self._tokenizer.eos_token_id]
        return (ids[: TOKENS - 1] + end) + end * (TOKENS - 1 - len(ids))


@dataclasses.dataclass(frozen=True)
class Album:
    """`latents`: scaled latents, bfloat16 [n, 4, 16, 16]. `tokens`: int16 [n, captions each, 77]."""

    latents: torch.Tensor
    tokens: torch.Tensor

    def batch(self, seed: int, counter: int, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Latents (float32) and token ids (int64) of random drawings with random captions, fixed by (seed, counter)."""
        random = np.random.Generator(np.random.Philox(key=[seed, counter]))
        sizes = np.array([[len(self.latents)], [self.tokens.shape[1]]])
        picks = torch.from_numpy(random.integers(sizes, size=(2, count)))
        rows, which = picks.to(self.latents.device, non_blocking=True)
        return self.latents[rows].float(), self.tokens[rows, which].long()


@torch.no_grad()
def make_album(vae: AutoencoderKL, tokenizer: CLIPTokenizer, drawings: int, seed: int) -> Album:
    """Draw, encode and describe `drawings` drawings; the same for the same seed and VAE."""
    device = vae.device
    encoder = CaptionEncoder(tokenizer)
    latents, tokens = [], []
    for counter, start in enumerate(range(0, drawings, _CHUNK)):
        batch = sample_drawings(seed, counter, min(_CHUNK, drawings - start))
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            means = vae.encode(render(batch, device)).latent_dist.mean
        latents.append((means.float() * vae.config.scaling_factor).bfloat16())
        ids = [encoder.encode(text) for text in captions(batch, CAPTIONS_EACH, seed + counter)]
        tokens.append(np.array(ids, dtype=np.int16).reshape(len(batch), CAPTIONS_EACH, TOKENS))
    return Album(torch.cat(latents), torch.from_numpy(np.concatenate(tokens)).to(device))
