"""The two stages of the training: the VAE, then UNet and text encoder together on an album of its latents."""

import time
from pathlib import Path
from typing import Final

import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline
from transformers import CLIPTextModel, CLIPTokenizer

from predictor.lab.shapes.album import make_album
from predictor.lab.shapes.drawings import render, sample_drawings
from predictor.lab.shapes.examination import draw, mark, questions
from predictor.lab.shapes.losses import autoencoder_loss, diffusion_draws, diffusion_loss
from predictor.lab.shapes.networks import (
    centre_latents,
    new_pipeline,
    new_scheduler,
    new_text_encoder,
    new_tokenizer,
    new_unet,
    new_vae,
)
from predictor.lab.shapes.run import LOG_EVERY, Run
from predictor.lab.shapes.trainer import Budget, Trainer

_VAE_RATE: Final = 8e-4
_DIFFUSION_RATE: Final = 8e-4
_MEASURED_BATCHES: Final = 16
# Counters of the stream of drawings: the album counts from 0, each stage's batches from here.
_MEASURED_FROM: Final = 2**19
_VAE_FROM: Final = 2**20
_DIFFUSION_FROM: Final = 2**21


def measured_pictures(run: Run, batches: int) -> list[torch.Tensor]:
    """Drawings to take figures of, in `batches` of the VAE's batch size: float32 [n, 3, 128, 128] in -1..1 each."""
    parts = (sample_drawings(run.args.seed, _MEASURED_FROM + part, run.args.vae_batch) for part in range(batches))
    return [render(drawings, run.device) for drawings in parts]


def train_vae(run: Run) -> AutoencoderKL | None:
    """The averaged VAE with centred latents, or None when the run's time ended before its budget."""
    args = run.args
    torch.manual_seed(args.seed)
    vae = new_vae().to(run.device)
    if "final" in run.vae_parts:
        vae.load_state_dict(run.vae_parts["final"])
        vae.register_to_config(scaling_factor=run.vae_facts["scaling_factor"])
        return vae.eval().requires_grad_(False)
    budget = Budget(60 * args.vae_minutes if args.vae_minutes else None, args.vae_steps)
    trainer = Trainer(dict(vae.named_parameters()), _VAE_RATE, budget)
    if run.vae_parts:
        trainer.restore(run.vae_facts, run.vae_parts)
    total, saved = torch.zeros((), device=run.device), time.monotonic()
    for step in run.ticks("VAE", trainer):
        pictures = render(sample_drawings(args.seed, _VAE_FROM + step, args.vae_batch), run.device)
        random = run.random(0, step)

        def loss(batch: torch.Tensor, random: torch.Generator = random) -> torch.Tensor:
            with run.autocast():
                return autoencoder_loss(vae, batch, random)

        total += trainer.update(loss, pictures)
        if trainer.steps % LOG_EVERY == 0:
            run.log("vae", trainer, total)
            total.zero_()
        if time.monotonic() - saved > args.save_seconds:
            run.vae_facts, run.vae_parts = trainer.state()
            run.save()
            saved = time.monotonic()
            trainer.resume_clock()
    run.vae_facts, run.vae_parts = trainer.state()
    if not trainer.done:
        run.save()
        return None
    vae.load_state_dict(trainer.average)
    vae.eval().requires_grad_(False)
    _finish_vae(run, vae)
    return vae


@torch.no_grad()
def _finish_vae(run: Run, vae: AutoencoderKL) -> None:
    batches = measured_pictures(run, _MEASURED_BATCHES)
    centre_latents(vae, torch.cat([vae.encode(batch).latent_dist.mean for batch in batches]))
    copy = vae.decode(vae.encode(batches[0]).latent_dist.mean).sample.clamp(-1, 1)
    noise_ratio = -10 * torch.log10(((copy - batches[0]) / 2).square().mean())
    figures = {"scaling_factor": vae.config.scaling_factor, "psnr_db": round(float(noise_ratio), 2)}
    run.vae_facts = {**run.vae_facts, **figures}
    run.vae_parts = {"final": {name: tensor.clone() for name, tensor in vae.state_dict().items()}}
    run.save()
    print(f"VAE done: {run.vae_facts}", flush=True)


def train_diffusion(run: Run, vae: AutoencoderKL, tokenizer_folder: Path) -> StableDiffusionPipeline:
    """The pipeline with averaged weights, as far as this run's time went."""
    args = run.args
    tokenizer = new_tokenizer(tokenizer_folder)
    torch.manual_seed(args.seed + 1)
    unet, text_encoder = new_unet().to(run.device), new_text_encoder(tokenizer).to(run.device)
    parameters = {f"unet.{name}": tensor for name, tensor in unet.named_parameters()}
    parameters |= {f"text_encoder.{name}": tensor for name, tensor in text_encoder.named_parameters()}
    budget = Budget(60 * args.diffusion_minutes if args.diffusion_minutes else None, args.diffusion_steps)
    trainer = Trainer(parameters, _DIFFUSION_RATE, budget, captured=run.device.type == "cuda")
    if run.diffusion_parts:
        trainer.restore(run.diffusion_facts, run.diffusion_parts)
    if not trainer.done:
        _update_on_album(run, trainer, vae, unet, text_encoder, tokenizer)
    return _averaged(run, trainer, vae, tokenizer)


def _update_on_album(
    run: Run,
    trainer: Trainer,
    vae: AutoencoderKL,
    unet: torch.nn.Module,
    text_encoder: CLIPTextModel,
    tokenizer: CLIPTokenizer,
) -> None:
    args = run.args
    began = time.monotonic()
    album = make_album(vae, tokenizer, args.drawings, args.seed)
    print(f"album of {len(album.latents)} drawings in {time.monotonic() - began:.1f} s", flush=True)
    scheduler = new_scheduler()
    scheduler.alphas_cumprod = scheduler.alphas_cumprod.to(run.device)

    def loss(*batch: torch.Tensor) -> torch.Tensor:
        with run.autocast():
            return diffusion_loss(unet, text_encoder, scheduler, *batch)

    total, saved = torch.zeros((), device=run.device), time.monotonic()
    for step in run.ticks("diffusion", trainer):
        latents, tokens = album.batch(args.seed, _DIFFUSION_FROM + step, args.batch)
        noise, timesteps = diffusion_draws(latents, run.random(1, step), scheduler.config.num_train_timesteps)
        total += trainer.update(loss, latents, tokens, noise, timesteps)
        if trainer.steps % LOG_EVERY == 0:
            run.log("diffusion", trainer, total)
            total.zero_()
        if time.monotonic() - saved > args.save_seconds:
            run.diffusion_facts, run.diffusion_parts = trainer.state()
            run.save()
            _glance(run, trainer.steps, _averaged(run, trainer, vae, tokenizer))
            saved = time.monotonic()
            trainer.resume_clock()
    run.diffusion_facts, run.diffusion_parts = trainer.state()
    run.save()


def _averaged(run: Run, trainer: Trainer, vae: AutoencoderKL, tokenizer: CLIPTokenizer) -> StableDiffusionPipeline:
    unet, text_encoder = new_unet().to(run.device).eval(), new_text_encoder(tokenizer).to(run.device).eval()
    for prefix, module in (("unet.", unet), ("text_encoder.", text_encoder)):
        mine = {name.removeprefix(prefix): t for name, t in trainer.average.items() if name.startswith(prefix)}
        module.load_state_dict(mine)
    return new_pipeline(vae, unet, text_encoder, tokenizer)


def _glance(run: Run, step: int, pipeline: StableDiffusionPipeline) -> None:
    asked = questions(run.args.glance)
    marks = mark(asked, draw(pipeline, [q.prompt for q in asked], [q.seed for q in asked]))
    print(
        f"step {step}: shape {marks.shape}, colour {marks.colour}, background {marks.background}, "
        f"all {marks.all} of {marks.of}",
        flush=True,
    )
