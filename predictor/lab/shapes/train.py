"""`sdzero train-shapes`: Train the demo model from nothing, in one run or in several that share a checkpoint.

Stage 1 trains the VAE on drawings rendered on the fly. Stage 2 fills an album with latents and captions, then trains
UNet and text encoder together. Each stage has a budget over all runs, in minutes or in steps; --minutes limits one run,
which keeps its last 45 seconds for the examination and the export. Batches follow from --seed and a counter, so a
resumed run goes on with the stream it left; with budgets in steps, so do the learning rates.
"""

import argparse
import json
import tarfile
import tempfile
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline

from predictor.lab.shapes.arguments import above_zero, at_least
from predictor.lab.shapes.card import write_card
from predictor.lab.shapes.examination import examine
from predictor.lab.shapes.networks import export, fit_latent_rgb
from predictor.lab.shapes.run import Run
from predictor.lab.shapes.stages import measured_pictures, train_diffusion, train_vae

_VAE_MINUTES = 3.0
_DIFFUSION_MINUTES = 10.0
_PREVIEW_BATCHES = 4


def main(argv: list[str]) -> int:
    """Train, examine and export; exit 3 when the run's time ended in the first stage, so that there is no model yet."""
    args = _parser().parse_args(argv)
    if args.vae_minutes is None and args.vae_steps is None:
        args.vae_minutes = _VAE_MINUTES
    if args.diffusion_minutes is None and args.diffusion_steps is None:
        args.diffusion_minutes = _DIFFUSION_MINUTES
    torch.backends.cudnn.benchmark = True
    torch.set_float32_matmul_precision("high")
    run = Run(args)
    vae = train_vae(run)
    if vae is None:
        rest = f"continue with --checkpoint {args.checkpoint}" if args.checkpoint else "without --checkpoint it is lost"
        print(f"--minutes {args.minutes:g} ended in the first stage; {rest}", flush=True)
        return 3
    with tempfile.TemporaryDirectory() as scratch:
        pipeline = train_diffusion(run, vae, Path(scratch))
    finish(run, pipeline, args.out)
    return 0


def finish(run: Run, pipeline: StableDiffusionPipeline, out: Path) -> None:
    """Examine the pipeline and write it with its card to `out`: a folder, or one file that ends in .tar."""
    vae = pipeline.vae
    pictures = torch.cat(measured_pictures(run, _PREVIEW_BATCHES))
    with torch.no_grad():
        latents = vae.encode(pictures).latent_dist.mean * vae.config.scaling_factor
    figures, drawn = examine(pipeline, run.args.examined)
    print(json.dumps(figures, indent=1), flush=True)
    facts = {"vae": run.vae_facts, "diffusion": run.diffusion_facts, "device": _device_name(run.device)}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "shapes" if out.suffix == ".tar" else out
        export(pipeline, fit_latent_rgb(latents, pictures), folder)
        write_card(folder, run.recipes, facts, figures, run.losses, drawn)
        if out.suffix == ".tar":
            out.parent.mkdir(parents=True, exist_ok=True)
            with tarfile.open(out, "w") as archive:
                archive.add(folder, arcname="shapes")
    right = figures["held_out"]
    print(f"wrote {out}: {right['all']} of {right['of']} held-out prompts right", flush=True)


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="sdzero train-shapes",
        description=__doc__.partition(": ")[2],
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        epilog="The defaults are made for one H100: 13 minutes of training, two for the rest. A rehearsal on a CPU:\n"
        "  sdzero train-shapes --device cpu --vae-steps 20 --vae-batch 8 --diffusion-steps 20 --batch 32 \\\n"
        "    --drawings 256 --examined 4 --out out/shapes",
    )
    add = parser.add_argument
    device = "cuda" if torch.cuda.is_available() else "cpu"
    add("--out", type=Path, required=True, help="folder to write, or a file that ends in .tar")
    add("--checkpoint", type=Path, help="folder of the checkpoint; an existing one is continued [none is kept]")
    add("--device", default=device, help="torch device [cuda where there is one, here %(default)s]")
    add("--minutes", type=above_zero, help="wall-clock limit of this run, examination and export included [no limit]")
    add("--seed", type=at_least(0), default=0, help="fixes drawings, captions, noise and first weights [%(default)s]")
    vae, diffusion = parser.add_mutually_exclusive_group(), parser.add_mutually_exclusive_group()
    vae.add_argument(
        "--vae-minutes", type=above_zero, help=f"training time of the VAE over all runs, in minutes [{_VAE_MINUTES:g}]"
    )
    vae.add_argument("--vae-steps", type=at_least(1), help="the same in steps")
    diffusion.add_argument(
        "--diffusion-minutes",
        type=above_zero,
        help=f"training time of UNet and text encoder over all runs, in minutes [{_DIFFUSION_MINUTES:g}]",
    )
    diffusion.add_argument("--diffusion-steps", type=at_least(1), help="the same in steps")
    add("--vae-batch", type=at_least(1), default=64, help="pictures per VAE step [%(default)s]")
    add("--batch", type=at_least(1), default=512, help="latents per diffusion step [%(default)s]")
    add("--drawings", type=at_least(1), default=131072, help="drawings in the album [%(default)s]")
    add("--examined", type=at_least(1), default=100, help="prompts in the final examination [%(default)s]")
    add("--glance", type=at_least(1), default=48, help="prompts examined at each save [%(default)s]")
    add("--save-seconds", type=above_zero, default=60.0, help="seconds between saves [%(default)g]")
    return parser
