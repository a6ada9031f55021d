"""What the two stages minimise."""

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from transformers import CLIPTextModel

_EDGE_WEIGHT = 1.0
_KL_WEIGHT = 1e-3
_FORGIVENESS = 0.12


def autoencoder_loss(vae: AutoencoderKL, pictures: torch.Tensor, random: torch.Generator) -> torch.Tensor:
    """L1 and squared error of pixels, L1 of their differences to the right and below, and a small KL term.

    The differences keep edges crisp. Latents get up to 12 % of noise, so that the decoder forgives what the UNet leaves
    behind.
    """
    posterior = vae.encode(pictures).latent_dist
    mean, logvar = posterior.mean.float(), posterior.logvar.float()
    device = mean.device
    amount = torch.rand(len(mean), 1, 1, 1, device=device, generator=random) * _FORGIVENESS * mean.detach().std()
    noise = torch.randn(mean.shape, device=device, generator=random)
    spread = (torch.exp(logvar) + amount**2).sqrt()
    copies = vae.decode(mean + spread * noise).sample.float()
    error = copies - pictures
    edges = error.diff(dim=2).abs().mean() + error.diff(dim=3).abs().mean()
    kl = 0.5 * (mean**2 + torch.exp(logvar) - 1 - logvar).mean()
    loss: torch.Tensor = error.abs().mean() + error.square().mean() + _EDGE_WEIGHT * edges + _KL_WEIGHT * kl
    return loss


def diffusion_draws(latents: torch.Tensor, random: torch.Generator, trained: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Unit noise like `latents`, and timesteps below `trained`, int64 [n].

    Timesteps are spread evenly over the batch, which lowers the variance between batches (Kingma et al. 2021,
    appendix I.1).
    """
    count, device = len(latents), latents.device
    noise = torch.randn(latents.shape, device=device, generator=random)
    offset = torch.rand(1, device=device, generator=random)
    places = (torch.arange(count, device=device) / count + offset) % 1
    return noise, (places * trained).long()


def diffusion_loss(
    unet: UNet2DConditionModel,
    text_encoder: CLIPTextModel,
    scheduler: DDIMScheduler,
    latents: torch.Tensor,
    tokens: torch.Tensor,
    noise: torch.Tensor,
    timesteps: torch.Tensor,
) -> torch.Tensor:
    """Mean squared error of the predicted noise (Ho et al. 2020, eq. 14)."""
    noisy = scheduler.add_noise(latents, noise, timesteps)
    states = text_encoder(tokens).last_hidden_state
    return torch.nn.functional.mse_loss(unet(noisy, timesteps, states).sample.float(), noise)
