import pytest
import torch

from predictor.lab.shapes.drawings import render, sample_drawings
from predictor.lab.shapes.losses import autoencoder_loss, diffusion_draws
from predictor.lab.shapes.networks import new_vae


def test_timesteps_are_spread_evenly_and_noise_is_unit() -> None:
    noise, timesteps = diffusion_draws(torch.zeros(500, 4, 16, 16), torch.Generator().manual_seed(1), 1000)
    assert sorted(timesteps.tolist())[::50] == pytest.approx(list(range(0, 1000, 100)), abs=2)
    assert timesteps.dtype == torch.int64
    assert float(noise.std()) == pytest.approx(1, abs=0.01)


def test_the_step_decides_what_is_drawn() -> None:
    latents = torch.zeros(8, 4, 16, 16)
    first, again, other = (diffusion_draws(latents, torch.Generator().manual_seed(s), 1000) for s in (1, 1, 2))
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[0], other[0])


def test_a_few_steps_on_one_batch_lower_the_loss_of_the_vae() -> None:
    torch.manual_seed(5)
    vae, pictures = new_vae(), render(sample_drawings(32, 0, 2))
    optimizer = torch.optim.AdamW(vae.parameters(), lr=2e-3)
    losses = []
    for step in range(6):
        loss = autoencoder_loss(vae, pictures, torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]
