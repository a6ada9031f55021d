"""`sdzero inspect`: what a bundle is, for which machine, and whether it fits this one.

Exit status: 0 it fits, 1 it does not fit this machine, 2 it is damaged or no bundle.
"""

import argparse
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from predictor.engine.baked.bundle import Bundle, BundleError, Machine, Package
from predictor.engine.baked.consistency import tensor_bytes
from predictor.engine.baked.machine import MachineError, describe
from predictor.engine.baked.weights import WeightStream

if TYPE_CHECKING:
    from tqdm import tqdm

FITS, UNFIT, BROKEN = 0, 1, 2


def main(argv: list[str]) -> int:
    """Print the bundle; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="sdzero inspect",
        description="What a bundle is, for which machine, and whether it fits this one.",
        epilog="Exit status: 0 it fits this machine, 1 it does not, 2 it is damaged or no bundle.",
        allow_abbrev=False,
    )
    parser.add_argument("bundle", type=Path, help="the folder that `sdzero bake` made")
    parser.add_argument("--json", action="store_true", help="print it for a machine to read")
    parser.add_argument("--verify", action="store_true", help="also read every file and compare its checksum")
    given = parser.parse_args(argv)
    try:
        bundle = Bundle.open(given.bundle)
        if given.verify:
            _verify(bundle)
    except BundleError as error:
        print(f"sdzero inspect: {error}", file=sys.stderr)
        return BROKEN
    try:
        reasons = bundle.unfit(describe(bundle.manifest.machine.device))
    except MachineError as error:
        reasons = [str(error)]
    if given.json:
        print(msgspec.json.format(msgspec.json.encode(_facts(bundle, reasons, given.verify)), indent=2).decode())
    else:
        print("\n".join(_lines(bundle, reasons, given.verify)))
    return UNFIT if reasons else FITS


class _Progress:
    """`Sink` that keeps nothing and moves a bar."""

    def __init__(self, bar: "tqdm[Any]") -> None:
        self._bar, self._lock = bar, threading.Lock()

    def buffer(self, offset: int, size: int) -> memoryview:  # noqa: ARG002  # any place does
        return memoryview(bytearray(size))

    def deliver(self, offset: int, view: memoryview) -> None:  # noqa: ARG002
        with self._lock:
            self._bar.update(len(view))


def _verify(bundle: Bundle) -> None:
    from tqdm import tqdm  # a container that serves has none, and can inspect without

    bundle.verify_files()
    with tqdm(total=bundle.index.size, desc="weights.bin", unit="B", unit_scale=True) as bar:
        WeightStream(bundle, _Progress(bar)).wait()


def _facts(bundle: Bundle, reasons: list[str], verified: bool) -> dict[str, Any]:
    index = bundle.index
    return {
        "fits": not reasons,
        "reasons": reasons,
        "checksums": "right" if verified else "not compared",
        "weights": {"bytes": index.size, "tensors": len(index.tensors), "chunks": len(index.sha256)},
        "manifest": bundle.manifest,
    }


def _lines(bundle: Bundle, reasons: list[str], verified: bool) -> Iterator[str]:
    manifest, index = bundle.manifest, bundle.index
    files = sum(file.size for file in manifest.files.values())
    yield f"{manifest.name}: {manifest.architecture} in {manifest.dtype}, revision {manifest.revision}"
    yield f"  baked     {manifest.baked_at} in {manifest.bake_seconds:.0f} s by sdzero {manifest.sdzero}"
    yield from _machine(manifest.machine)
    yield f"  samplers  {', '.join(manifest.samplers)}"
    yield f"  weights   {_size(index.size)}: {len(index.tensors)} tensors in {len(index.sha256)} chunks"
    yield f"  files     {_size(files)}: {len(manifest.files)} files besides"
    yield f"  checksums {'right, of every file' if verified else 'not compared (--verify does)'}"
    yield f"  packages  up to {manifest.max_rows} images in one step"
    yield ""
    header = ("name", "kind", "pixels", "images", "evaluations", "weights", "library")
    yield from _table([header, *(_row(bundle, package) for package in manifest.packages)])
    yield ""
    if reasons:
        yield "It does not fit this machine:"
        yield from (f"- {reason}" for reason in reasons)
    else:
        yield "It fits this machine."


def _machine(machine: Machine) -> Iterator[str]:
    gpu = f"{machine.gpu}, compute capability {machine.capability}, " if machine.device == "cuda" else ""
    cuda = f" for CUDA {machine.cuda}" if machine.device == "cuda" else ""
    triton = f", Triton {machine.triton}" if machine.triton else ""
    yield f"  for       {machine.device}: {gpu}torch {machine.torch}{cuda}"
    yield f"            {machine.arch} with {' '.join(machine.cpu_flags) or 'no more than every such CPU has'}"
    yield f"  compiler  {machine.compiler}{triton}"


def _row(bundle: Bundle, package: Package) -> tuple[str, ...]:
    tensors = {bundle.index.tensors[name] for name in package.constants.values()}
    return (
        package.name,
        package.kind,
        f"{package.height}x{package.width}" if package.height else "any",
        _range(package.images),
        _range(package.evaluations),
        _size(sum(map(tensor_bytes, tensors))),
        package.library,
    )


def _table(rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _range(ends: tuple[int, int]) -> str:
    return str(ends[0]) if ends[0] == ends[1] else f"{ends[0]} to {ends[1]}"


def _size(size: float) -> str:
    """Bytes as people read them: 2.1 GB, of 10⁹."""
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"
