"""Run every package of an unfinished bundle and compare it with the module that it was made from.

    python -m predictor.lab.bake.check REQUEST.json

A process of its own, for a package that is wrong may crash. Weights are read from the bundle for the package and from
the model's folder for the module, so that a mistake between the two shows.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch import Tensor

from predictor.engine.baked.manifest import Package, WeightIndex
from predictor.engine.folder import ModelFolder
from predictor.lab.bake import parts, weights
from predictor.lab.bake.children import STAGE
from predictor.lab.bake.compile import load
from predictor.lab.bake.plan import Job

# Relative to the length of the right answer. Half precision rounds at 5e-4, guidance takes differences of it times 8;
# convolutions of float32 run in TF32 on a GPU.
ALLOWED = {"float32": {"cpu": 1e-4, "cuda": 1e-2}, "float16": {"cpu": 5e-2, "cuda": 5e-2}}
ALLOWED_LEVELS = 1.0  # root mean square of 255
SEED = 20


class Request(msgspec.Struct, frozen=True):
    """What to check; paths of folders and files."""

    bundle: str
    model: str
    preview: str
    jobs: list[Job]
    packages: list[Package]


class Report(msgspec.Struct, frozen=True):
    """A line to the parent: `detail` says how far off a package that is done was."""

    package: str
    state: str
    detail: str = ""


class Wrong(Exception):
    """A package computes something else than its module."""


def main(argv: list[str]) -> int:
    """Exit status 0 if all are right, 1 with the reason as the last line of the log."""
    request = msgspec.json.decode(Path(argv[0]).read_bytes(), type=Request)
    torch.backends.cuda.matmul.allow_tf32 = False
    device = request.jobs[0].device
    stored = _stored(Path(request.bundle), device)
    components = weights.components(ModelFolder.open(Path(request.model)), device == "cuda", Path(request.preview))
    for job, package in zip(request.jobs, request.packages, strict=True):
        _tell(Report(job.name, "checking"))
        runner = load(Path(request.bundle) / package.library, device)
        own_names = runner.get_constant_names_to_original_fqns()
        constants = {name: stored[package.constants[original]] for name, original in own_names.items()}
        runner.update_constant_buffer(constants, False, True, True)
        needed = {name: parts.settle(components[name], job) for name in job.configs or ["preview"]}
        try:
            worst = _compare(job, parts.assemble(job, needed), runner)
        except Wrong as error:
            print(error, flush=True)
            return 1
        _tell(Report(job.name, "done", worst))
    return 0


def counts(job: Job) -> list[tuple[int, int]]:
    """Images and evaluations to try: the fewest, the most, and a number of each between."""
    (least, most), (least_evaluations, most_evaluations) = job.images, job.evaluations
    between = (least + most) // 2, (least_evaluations + most_evaluations) // 2
    return list(dict.fromkeys([(least, least_evaluations), between, (most, most_evaluations)]))


@torch.no_grad()
def _compare(job: Job, part: torch.nn.Module, runner: Any) -> str:
    generator = torch.Generator(job.device).manual_seed(SEED)
    worst = 0.0
    for images, evaluations in counts(job):
        inputs = parts.example(job, images, evaluations, generator)
        right = part(*inputs)
        right = right if isinstance(right, tuple) else (right,)
        got = runner.run(list(inputs))
        where = f"package {job.name}: with {images} images and {evaluations} evaluations"
        for number, (mine, its) in enumerate(zip(right, got, strict=True)):
            worst = max(worst, _deviation(job, mine, its, f"{where}, output {number}"))
    return f"off by {worst:.1e}" if right[0].is_floating_point() else f"off by {worst:.2f} of 255"


def _deviation(job: Job, right: Tensor, got: Tensor, where: str) -> float:
    if (got.shape, got.dtype) != (right.shape, right.dtype) or not got.is_contiguous():
        raise Wrong(
            f"{where}: {got.dtype} {list(got.shape)}, strides {got.stride()}; "
            f"expected {right.dtype} {list(right.shape)}, contiguous"
        )
    if not right.is_floating_point():
        levels: float = (got.float() - right.float()).square().mean().sqrt().item()
        if levels > ALLOWED_LEVELS:
            raise Wrong(f"{where}: pictures are {levels:.2f} of 255 apart (root mean square); allowed {ALLOWED_LEVELS}")
        return levels
    if not right.isfinite().all():
        raise Wrong(f"{where}: the model's own module gives numbers that are not finite in {job.dtype}")
    bad = int((~got.isfinite()).sum())
    if bad:
        raise Wrong(f"{where}: {bad} of {got.numel()} numbers are not finite; the model's own module gives none")
    off: float = ((got.double() - right.double()).norm() / right.double().norm().clamp_min(1e-12)).item()
    allowed = ALLOWED[job.dtype][job.device]
    if off > allowed:
        raise Wrong(f"{where}: differs from the model's own module by {off:.1e} of its length; allowed {allowed:.0e}")
    return off


def _stored(bundle: Path, device: str) -> dict[str, Tensor]:
    """The tensors of weights.bin, where and as the runtime will have them: views of one piece of memory."""
    index = msgspec.json.decode((bundle / "weights.json").read_bytes(), type=WeightIndex)
    everything = torch.from_file(str(bundle / "weights.bin"), size=index.size, dtype=torch.uint8).to(device)

    def views() -> Iterator[tuple[str, Tensor]]:
        for name, spec in index.tensors.items():
            dtype = getattr(torch, spec.dtype)
            size = torch.Size(spec.shape).numel() * dtype.itemsize
            flat = everything[spec.offset : spec.offset + size].view(dtype)
            yield name, flat.as_strided(spec.shape, spec.strides)

    return dict(views())


def _tell(report: Report) -> None:
    print(STAGE + msgspec.json.encode(report).decode(), flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
