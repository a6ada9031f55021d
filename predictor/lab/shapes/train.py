"""`sdzero train-shapes`: train the demo model from nothing, in one run or in several that share a checkpoint.

Stage 1 trains the VAE on drawings rendered on the fly. Stage 2 fills an album with latents and captions, then trains
UNet and text encoder together. Each stage has a budget over all runs, in minutes or in steps; `--minutes` limits one
run, which keeps its last 50 seconds for the examination and the export. Batches follow from `--seed` and a counter, so a
resumed run goes on with the stream it left; with budgets in steps, so do the learning rates.
"""

import argparse
import json
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline
from tqdm import tqdm

from predictor.lab.shapes.album import Album, make_album
from predictor.lab.shapes.card import write_card
from predictor.lab.shapes.checkpoint import Tensors, load_checkpoint, save_checkpoint
from predictor.lab.shapes.drawings import render, sample_drawings
from predictor.lab.shapes.examination import draw, examine, mark, questions
from predictor.lab.shapes.losses import autoencoder_loss, diffusion_draws, diffusion_loss
from predictor.lab.shapes.networks import (
    centre_latents,
    export,
    fit_latent_rgb,
    new_pipeline,
    new_scheduler,
    new_text_encoder,
    new_tokenizer,
    new_unet,
    new_vae,
)
from predictor.lab.shapes.trainer import Budget, Trainer

_CLOSING_SECONDS: Final = 45.0
_LOG_EVERY: Final = 50
_VAE_RATE: Final = 8e-4
_DIFFUSION_RATE: Final = 8e-4


class Run:
    """The state of one run: its deadline, its checkpoint folder, the loss log, and what is trained so far."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.device = torch.device(args.device)
        self.deadline = time.monotonic() + 60 * args.minutes - _CLOSING_SECONDS if args.minutes else float("inf")
        self.losses: list[dict[str, Any]] = []
        self.vae_facts: dict[str, float] = {}
        self.vae_parts: dict[str, Tensors] = {}
        self.diffusion_facts: dict[str, float] = {}
        self.diffusion_parts: dict[str, Tensors] = {}
        self.resume()

    def resume(self) -> None:
        """Take up the newest checkpoint, if there is one."""
        if not self.args.checkpoint or not (saved := load_checkpoint(self.args.checkpoint, self.device)):
            return
        facts, parts = saved
        if facts["seed"] != self.args.seed:
            raise SystemExit(f"--seed {self.args.seed}: {self.args.checkpoint} was trained with seed {facts['seed']}")
        self.vae_facts, self.diffusion_facts, self.losses = facts["vae"], facts["diffusion"], facts["losses"]
        for name, tensors in parts.items():
            stage, _, part = name.partition("-")
            (self.vae_parts if stage == "vae" else self.diffusion_parts)[part] = tensors
        print(f"resumed: VAE {self.vae_facts}, diffusion {self.diffusion_facts}", flush=True)

    def save(self) -> None:
        if not self.args.checkpoint:
            return
        facts = {
            "seed": self.args.seed,
            "vae": self.vae_facts,
            "diffusion": self.diffusion_facts,
            "losses": self.losses,
        }
        stages = (("vae", self.vae_parts), ("diffusion", self.diffusion_parts))
        parts = {f"{stage}-{part}": tensors for stage, found in stages for part, tensors in found.items()}
        save_checkpoint(self.args.checkpoint, facts, parts)

    def random(self, stage: int, step: int) -> torch.Generator:
        """The device's random numbers for one step of one stage."""
        return torch.Generator(self.device).manual_seed((self.args.seed * 2 + stage) * 1_000_003 + step)

    def autocast(self) -> torch.autocast:
        # The cache of cast weights does not survive the capture of a step.
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda", cache_enabled=False)

    def ticks(self, name: str, trainer: Trainer) -> Iterator[int]:
        """Step numbers until the stage's budget or the run's time is spent, with a progress bar."""
        form = "{desc} {percentage:3.0f}% {bar:20} {elapsed}<{remaining}{postfix}"
        bar = tqdm(desc=name, total=1000, mininterval=20 if not sys.stderr.isatty() else 0.5, bar_format=form)
        trainer.resume_clock()
        while not trainer.done and time.monotonic() < self.deadline:
            yield trainer.steps
            bar.set_postfix(steps=trainer.steps, refresh=False)
            bar.update(int(1000 * trainer.budget.share(trainer.seconds, trainer.steps)) - bar.n)
        bar.close()

    def log(self, stage: str, trainer: Trainer, total: torch.Tensor) -> None:
        """Note the mean of the last losses; the only place where the loop waits for the device."""
        entry = {"stage": stage, "step": trainer.steps, "seconds": round(trainer.seconds, 1)}
        self.losses.append({**entry, "loss": round(float(total) / _LOG_EVERY, 6)})
        if trainer.steps % (10 * _LOG_EVERY) == 0:
            print(json.dumps(self.losses[-1]), flush=True)


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
        pictures = render(sample_drawings(args.seed, 2**20 + step, args.vae_batch), run.device)
        random = run.random(0, step)

        def loss(batch: torch.Tensor, random: torch.Generator = random) -> torch.Tensor:
            with run.autocast():
                return autoencoder_loss(vae, batch, random)

        total += trainer.update(loss, pictures)
        if trainer.steps % _LOG_EVERY == 0:
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
    batches = [render(sample_drawings(run.args.seed, 2**19 + part, 128), run.device) for part in range(8)]
    means = torch.cat([vae.encode(batch).latent_dist.mean for batch in batches])
    centre_latents(vae, means)
    copy = vae.decode(vae.encode(batches[0]).latent_dist.mean).sample.clamp(-1, 1)
    noise_ratio = -10 * torch.log10(((copy - batches[0]) / 2).square().mean())
    run.vae_facts = {
        **run.vae_facts,
        "scaling_factor": vae.config.scaling_factor,
        "psnr_db": round(float(noise_ratio), 2),
    }
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
    scheduler = new_scheduler()
    began = time.monotonic()
    album = make_album(vae, tokenizer, args.drawings, args.seed) if not trainer.done else Album(*[torch.empty(0)] * 2)
    print(f"album of {len(album.latents)} drawings in {time.monotonic() - began:.1f} s", flush=True)
    scheduler.alphas_cumprod = scheduler.alphas_cumprod.to(run.device)

    def loss(*batch: torch.Tensor) -> torch.Tensor:
        with run.autocast():
            return diffusion_loss(unet, text_encoder, scheduler, *batch)

    def averaged() -> StableDiffusionPipeline:
        stand_in, text_stand_in = new_unet().to(run.device).eval(), new_text_encoder(tokenizer).to(run.device).eval()
        for prefix, module in (("unet.", stand_in), ("text_encoder.", text_stand_in)):
            weights = {name.removeprefix(prefix): t for name, t in trainer.average.items() if name.startswith(prefix)}
            module.load_state_dict(weights, strict=False)
        return new_pipeline(vae, stand_in, text_stand_in, tokenizer)

    total, saved = torch.zeros((), device=run.device), time.monotonic()
    for step in run.ticks("diffusion", trainer):
        latents, tokens = album.batch(args.seed, 2**21 + step, args.batch)
        noise, timesteps = diffusion_draws(latents, run.random(1, step), scheduler.config.num_train_timesteps)
        total += trainer.update(loss, latents, tokens, noise, timesteps)
        if trainer.steps % _LOG_EVERY == 0:
            run.log("diffusion", trainer, total)
            total.zero_()
        if time.monotonic() - saved > args.save_seconds:
            run.diffusion_facts, run.diffusion_parts = trainer.state()
            run.save()
            asked = questions(args.glance)
            marks = mark(asked, draw(averaged(), [q.prompt for q in asked], [q.seed for q in asked]))
            print(
                f"step {trainer.steps}: shape {marks.shape}, colour {marks.colour}, background {marks.background}, "
                f"all {marks.all} of {marks.of}",
                flush=True,
            )
            saved = time.monotonic()
            trainer.resume_clock()
    run.diffusion_facts, run.diffusion_parts = trainer.state()
    run.save()
    return averaged()


def finish(run: Run, pipeline: StableDiffusionPipeline, out: Path) -> None:
    """Examine the pipeline and write it with its card to `out`: a folder, or one file that ends in .tar."""
    vae, device = pipeline.vae, run.device
    pictures = torch.cat([render(sample_drawings(run.args.seed, 2**19 + part, 128), device) for part in range(2)])
    with torch.no_grad():
        latents = vae.encode(pictures).latent_dist.mean * vae.config.scaling_factor
    figures, asked, drawn = examine(pipeline, run.args.examined)
    print(json.dumps(figures, indent=1), flush=True)
    for wrong in figures["held_out"]["wrong"]:
        print("wrong:", wrong)
    facts = {"vae": run.vae_facts, "diffusion": run.diffusion_facts, "device": _device_name(device)}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "shapes" if out.suffix == ".tar" else out
        export(pipeline, fit_latent_rgb(latents, pictures), folder)
        write_card(folder, facts, figures, run.losses, asked, drawn)
        if out.suffix == ".tar":
            out.parent.mkdir(parents=True, exist_ok=True)
            with tarfile.open(out, "w") as archive:
                archive.add(folder, arcname="shapes")
    print(
        f"wrote {out}: {figures['held_out']['all']} of {figures['held_out']['of']} held-out prompts right", flush=True
    )


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="sdzero train-shapes", description=__doc__)
    add = parser.add_argument
    add("--out", type=Path, required=True, help="folder to write, or a file that ends in .tar")
    add("--checkpoint", type=Path, help="folder of the checkpoint; an existing one is continued")
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="torch device (default: %(default)s)")
    add("--minutes", type=float, help="wall-clock limit of this run, examination and export included")
    add("--seed", type=int, default=0, help="fixes drawings, captions, noise and first weights")
    vae, diffusion = parser.add_mutually_exclusive_group(), parser.add_mutually_exclusive_group()
    vae.add_argument("--vae-minutes", type=float, help="training time of the VAE over all runs")
    vae.add_argument("--vae-steps", type=int, help="the same in steps")
    diffusion.add_argument(
        "--diffusion-minutes", type=float, help="training time of UNet and text encoder over all runs"
    )
    diffusion.add_argument("--diffusion-steps", type=int, help="the same in steps")
    add("--vae-batch", type=int, default=64, help="pictures per VAE step (default: %(default)s)")
    add("--batch", type=int, default=512, help="latents per diffusion step (default: %(default)s)")
    add("--drawings", type=int, default=131072, help="drawings in the album (default: %(default)s)")
    add("--examined", type=int, default=100, help="prompts in the final examination (default: %(default)s)")
    add("--glance", type=int, default=48, help="prompts examined at each save (default: %(default)s)")
    add("--save-seconds", type=float, default=60.0, help="seconds between saves (default: %(default)s)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = arguments().parse_args(argv)
    if not (args.vae_minutes or args.vae_steps):
        args.vae_minutes = 3.0
    if not (args.diffusion_minutes or args.diffusion_steps):
        args.diffusion_minutes = 10.0
    torch.backends.cudnn.benchmark = True
    torch.set_float32_matmul_precision("high")
    run = Run(args)
    vae = train_vae(run)
    if vae is None:
        print(f"time is up in the first stage; continue with --checkpoint {args.checkpoint}", flush=True)
        return 3
    with tempfile.TemporaryDirectory() as scratch:
        pipeline = train_diffusion(run, vae, Path(scratch))
    finish(run, pipeline, args.out)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
