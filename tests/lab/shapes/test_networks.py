import numpy as np
import torch

from predictor.lab.shapes.drawings import render, sample_drawings
from predictor.lab.shapes.networks import centre_latents, fit_latent_rgb, new_vae


def test_centring_changes_the_latents_and_not_the_pictures() -> None:
    torch.manual_seed(3)
    vae = new_vae().eval().requires_grad_(False)
    pictures = render(sample_drawings(31, 0, 8))
    before = vae.encode(pictures).latent_dist
    expected = vae.decode(before.mean).sample
    centre_latents(vae, before.mean)
    after = vae.encode(pictures).latent_dist
    scaled = after.mean * vae.config.scaling_factor
    torch.testing.assert_close(scaled.mean((0, 2, 3)), torch.zeros(4), atol=1e-3, rtol=0)
    torch.testing.assert_close(scaled.std((0, 2, 3)), torch.ones(4), atol=1e-3, rtol=0)
    torch.testing.assert_close(vae.decode(after.mean).sample, expected, atol=1e-4, rtol=0)
    gain = after.mean.std((0, 2, 3)) / before.mean.std((0, 2, 3))
    torch.testing.assert_close(after.std, before.std * gain[:, None, None], rtol=1e-3, atol=0)


def test_the_preview_matrix_is_found() -> None:
    random = torch.Generator().manual_seed(4)
    matrix, bias = torch.rand(4, 3, generator=random) * 0.2, torch.rand(3, generator=random) * 0.2
    latents = torch.rand(5, 4, 16, 16, generator=random)
    colours = torch.einsum("nchw,cd->ndhw", latents, matrix) + bias[:, None, None]
    pictures = colours.repeat_interleave(8, 2).repeat_interleave(8, 3) * 2 - 1
    found = fit_latent_rgb(latents, pictures)
    np.testing.assert_allclose(found["matrix"], matrix, atol=1e-4)
    np.testing.assert_allclose(found["bias"], bias, atol=1e-4)
