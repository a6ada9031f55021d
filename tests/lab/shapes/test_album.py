from pathlib import Path

import numpy as np
import torch

from predictor.lab.shapes.album import CAPTIONS_EACH, make_album
from predictor.lab.shapes.networks import new_tokenizer, new_vae


def test_an_album_is_the_same_for_the_same_seed_and_gives_what_a_step_asks_for(tmp_path: Path) -> None:
    torch.manual_seed(1)
    vae, tokenizer = new_vae().eval(), new_tokenizer(tmp_path)
    album, again = (make_album(vae, tokenizer, 6, seed=2) for _ in range(2))
    assert album.latents.shape == (6, 4, 16, 16)
    assert album.tokens.shape == (6, CAPTIONS_EACH, 77)
    assert torch.equal(album.latents, again.latents)
    assert torch.equal(album.tokens, again.tokens)
    latents, tokens = album.batch(2, 9, 32)
    assert (latents.dtype, tokens.dtype) == (torch.float32, torch.int64)
    for latent, ids in zip(latents, tokens, strict=True):
        rows = [row for row in range(6) if torch.equal(album.latents[row].float(), latent)]
        assert any((album.tokens[row].numpy() == ids.numpy()).all(1).any() for row in rows)
    np.testing.assert_array_equal(album.batch(2, 9, 32)[1], tokens)
    assert not np.array_equal(album.batch(2, 10, 32)[1], tokens)
