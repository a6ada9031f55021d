"""Does a bundle draw what its model draws? One crowd of requests through both runtimes, and pictures compared.

Every sampler at several guidance scales and numbers of steps, all at once, so that batches of every size mix them. Each
runtime works in a process of its own: one imports torch, the other must not.
"""

import argparse
import itertools
import json
import math
import multiprocessing
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from predictor.core.messages import Ended, Finished, Generate
from predictor.core.request import Capabilities, GenerationRequest
from predictor.engine.denoiser import Denoiser
from predictor.engine.runtime import Floats, Pixels, State, StepRow
from predictor.settings import EngineSettings

PROMPTS = ("a red circle on a blue background", "a large green square on a white background", "a yellow star")


class Drawn(msgspec.Struct, frozen=True):
    """One image of the crowd: how it was asked for, and how far apart the runtimes drew it."""

    sampler: str
    steps: int
    guidance_scale: float
    seed: int
    latents: float  # largest difference of the finished latents
    levels: int  # largest difference of a pixel, of 255
    psnr: float  # dB; 999 where the pictures are equal


class Report(msgspec.Struct, frozen=True):
    """What came out; `batches` are the sizes of the calls that the bundle's runtime made."""

    device: str
    dtype: str
    batches: tuple[int, ...]
    worst_psnr: float
    worst_latents: float
    finite: bool
    drawn: tuple[Drawn, ...]


@dataclass(frozen=True)
class Side:
    """What one runtime drew, in the crowd's order."""

    capabilities: Capabilities
    latents: list[Floats]
    pictures: list[Pixels]
    batches: tuple[int, ...]
    torch_imported: bool


def main(argv: list[str]) -> int:
    """Returns 0 if every picture is within the bounds, 1 if not."""
    parser = argparse.ArgumentParser(prog="sdzero compare", description=__doc__)
    parser.add_argument("bundle", type=Path, help="folder that `sdzero bake` made")
    parser.add_argument("--model", type=Path, required=True, help="the folder that it was made from")
    parser.add_argument("--steps", type=int, default=20, help="of the longest request; others take fewer (default 20)")
    parser.add_argument("--psnr", type=float, default=40.0, help="dB that the worst picture needs (default 40)")
    parser.add_argument("--json", type=Path, help="write the report here as well")
    given = parser.parse_args(argv)
    report = compare(given.bundle, given.model, given.steps)
    for one in report.drawn:
        name = f"{one.sampler} {one.steps} steps, guidance {one.guidance_scale:g}, seed {one.seed}"
        print(f"{name:52} latents {one.latents:.1e}  levels {one.levels:3}  PSNR {one.psnr:5.1f} dB")
    print(
        f"batches of {', '.join(map(str, sorted(set(report.batches))))}; worst PSNR {report.worst_psnr:.1f} dB", end=""
    )
    print(f", worst latents {report.worst_latents:.1e}")
    if given.json:
        given.json.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=1) + b"\n")
    return 0 if report.finite and report.worst_psnr >= given.psnr else 1


def compare(bundle: Path, model: Path, steps: int, threads: int = 0) -> Report:
    """Draw the crowd with both runtimes; the bundle says on which device and in which precision.

    `threads` are each runtime's on a CPU; 0 takes one per core.
    """
    machine = json.loads((bundle / "manifest.json").read_text())
    device, dtype = machine["machine"]["device"], machine["dtype"]
    baked = _elsewhere(EngineSettings(bundle=str(bundle), threads=threads), steps)
    if baked.torch_imported:
        raise RuntimeError("the bundle's runtime imported torch")
    eager = _elsewhere(EngineSettings(model=str(model), device=device, dtype=dtype, threads=threads), steps)
    found = []
    requests = crowd(baked.capabilities, steps)
    for number, request in enumerate(requests):
        difference = np.abs(baked.latents[number] - eager.latents[number])
        levels = differences(baked.pictures[number], eager.pictures[number])
        found.append(
            Drawn(
                sampler=request.sampler,
                steps=request.steps,
                guidance_scale=request.guidance_scale,
                seed=request.seed,
                latents=float(difference.max()),
                levels=int(levels.max()),
                psnr=psnr(levels),
            )
        )
    return Report(
        device=device,
        dtype=dtype,
        batches=baked.batches,
        worst_psnr=min(one.psnr for one in found),
        worst_latents=max(one.latents for one in found),
        finite=all(bool(np.isfinite(latents).all()) for latents in baked.latents),
        drawn=tuple(found),
    )


def crowd(capabilities: Capabilities, steps: int) -> list[GenerationRequest]:
    """Two images per sampler and guidance scale, at the model's own size."""
    kinds = itertools.product(capabilities.samplers, (1.0, 4.0, 7.5), (1, 2))
    return [
        GenerationRequest(
            prompt=PROMPTS[number % len(PROMPTS)],
            negative_prompt="" if number % 4 else "a blue square",
            seed=number,
            # Of many lengths, so that rows leave at different times. Consistency models diverge with many steps.
            steps=min(8, steps) if sampler == "lcm" else max(2, steps - number % 8),
            guidance_scale=guidance,
            height=capabilities.default_height,
            width=capabilities.default_width,
            sampler=sampler,
            num_images=1,
            truncate_prompt=False,
        )
        for number, (sampler, guidance, _) in enumerate(kinds)
    ]


def draw(settings: EngineSettings, steps: int) -> Side:
    """The crowd's pictures by the runtime that `settings` name."""
    from predictor.engine.load import load

    prelude = None
    if settings.bundle:
        from predictor.engine.baked.prelude import Prelude

        prelude = Prelude(settings).begin()
    worker, capabilities = load(settings, lambda *_: None, prelude)
    assert isinstance(worker, Denoiser)
    watched = _Watched(worker.runtime)
    worker.runtime = watched
    pictures = drawn(worker, crowd(capabilities, steps))
    latents = [watched.latents[picture.tobytes()] for picture in pictures]
    return Side(capabilities, latents, pictures, tuple(watched.batches), "torch" in sys.modules)


def drawn(worker: Denoiser, requests: list[GenerationRequest]) -> list[Pixels]:
    """A picture of each request, for one image each; all are drawn at once."""
    for number, request in enumerate(requests):
        worker.add(Generate(str(number), request, deadline=math.inf))
    pictures: dict[str, Pixels] = {}
    while worker.busy:
        for event, images in worker.advance():
            if isinstance(event, Ended):
                raise RuntimeError(f"request {event.id} was not drawn: {event}")
            if isinstance(event, Finished):
                pictures[event.id] = images[0]
    return [pictures[str(number)] for number in range(len(requests))]


class _Watched:
    """A runtime, with notes of its batches and of the latents behind each picture."""

    def __init__(self, runtime: Any) -> None:
        self._runtime = runtime
        self.batches: list[int] = []
        self.latents: dict[bytes, Floats] = {}

    def step(self, rows: list[StepRow]) -> list[State]:
        self.batches.append(len(rows))
        stepped: list[State] = self._runtime.step(rows)
        return stepped

    def decode(self, states: list[State]) -> list[Pixels]:
        pictures: list[Pixels] = self._runtime.decode(states)
        for state, picture in zip(states, pictures, strict=True):
            # After the last step the estimate of the finished latents is the finished latents.
            self.latents[picture.tobytes()] = self._runtime.denoised(state)
        return pictures

    def __getattr__(self, name: str) -> Any:
        return getattr(self._runtime, name)


def _elsewhere(settings: EngineSettings, steps: int) -> Side:
    work: Callable[[EngineSettings, int], Side] = draw
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(work, settings, steps).result()


def differences(one: Pixels, other: Pixels) -> NDArray[np.int16]:
    """Of each value of two pictures, in levels of 255."""
    return np.abs(one.astype(np.int16) - other.astype(np.int16))


def psnr(levels: NDArray[np.int16]) -> float:
    """Peak signal-to-noise ratio in dB, of differences in levels of 255; 999 where there are none."""
    error = float((levels.astype(np.float64) ** 2).mean())
    return 999.0 if error == 0 else 10 * math.log10(255**2 / error)
