"""How far a model itself carries an error: its pictures with and without a little noise on every prediction.

    python -m predictor.lab.sensitivity MODEL --noise 1e-3

The crowd of `sdzero compare`, drawn by one runtime in float32 on the CPU. Where such noise alone moves a picture far,
two runtimes that round differently cannot draw the same one, and what `sdzero compare` finds there tells of neither.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import msgspec
from tqdm import tqdm

from predictor.engine.denoiser import Denoiser
from predictor.lab.comparison import crowd, differences, drawn, psnr
from predictor.settings import EngineSettings

if TYPE_CHECKING:
    import torch


class Moved(msgspec.Struct, frozen=True):
    """One picture: how it was asked for, and its PSNR in dB to the one without noise, for each draw of the noise."""

    sampler: str
    steps: int
    guidance_scale: float
    seed: int
    psnr: tuple[float, ...]


class Report(msgspec.Struct, frozen=True):
    """`noise` is the standard deviation of the noise over that of the prediction."""

    model: str
    noise: float
    moved: tuple[Moved, ...]


def main(argv: Sequence[str]) -> int:
    """Print and write how far each picture moves; returns 0."""
    parser = argparse.ArgumentParser(
        prog="python -m predictor.lab.sensitivity",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", type=Path, help="folder in diffusers format")
    parser.add_argument("--noise", type=float, default=1e-3, help="relative to the prediction (default %(default)g)")
    parser.add_argument("--draws", type=int, default=5, help="of the noise, each for all pictures (default 5)")
    parser.add_argument("--steps", type=int, default=20, help="of the longest request, as in compare (default 20)")
    parser.add_argument("--json", type=Path, help="write the report here as well")
    given = parser.parse_args(argv)
    report = measure(given.model, given.noise, given.draws, given.steps)
    for one in sorted(report.moved, key=lambda moved: min(moved.psnr)):
        name = f"{one.sampler} {one.steps} steps, guidance {one.guidance_scale:g}, seed {one.seed}"
        print(f"{name:52} PSNR {min(one.psnr):5.1f} to {max(one.psnr):5.1f} dB, median {median(one.psnr):5.1f}")
    if given.json:
        given.json.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=1) + b"\n")
    return 0


def measure(model: Path, noise: float, draws: int, steps: int, threads: int = 0) -> Report:
    """Draw the crowd once without and `draws` times with noise; seeds fix all of it."""
    # Imported here, with all of torch.
    from predictor.engine.eager import EagerRuntime
    from predictor.engine.load import load

    settings = EngineSettings(model=str(model), device="cpu", dtype="float32", threads=threads)
    worker, capabilities = load(settings, lambda *_: None, None)
    assert isinstance(worker, Denoiser)
    assert isinstance(worker.runtime, EagerRuntime)
    requests = crowd(capabilities, steps)
    still = drawn(worker, requests)
    worker.runtime.unet.register_forward_hook(_noisy(noise))
    moved = [drawn(worker, requests) for _ in tqdm(range(draws), "drawing", unit="draw")]
    return Report(
        model=model.name,
        noise=noise,
        moved=tuple(
            Moved(
                sampler=request.sampler,
                steps=request.steps,
                guidance_scale=request.guidance_scale,
                seed=request.seed,
                psnr=tuple(psnr(differences(still[number], pictures[number])) for pictures in moved),
            )
            for number, request in enumerate(requests)
        ),
    )


def _noisy(noise: float) -> Any:
    """A forward hook that adds Gaussian noise to the prediction of each image, relative to its own size."""
    import torch

    generator = torch.Generator().manual_seed(0)

    def hook(_module: "torch.nn.Module", _given: object, out: tuple["torch.Tensor", ...]) -> tuple["torch.Tensor", ...]:
        prediction = out[0]
        size = prediction.float().std(dim=(1, 2, 3), keepdim=True)
        added = noise * size * torch.randn(prediction.shape, generator=generator)
        return prediction + added.to(prediction.dtype), *out[1:]

    return hook


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
