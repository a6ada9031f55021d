"""What an engine that sleeps gives back and how soon, and what its return costs.

    python -m predictor.lab.sleeping BUNDLE --device cuda --size 512 --steps 50

The server of `sdzero serve-predictor --sleep-after-seconds` is asked for a picture, watched until its engine has ended
and its memory on the GPU is free, and asked again. Each cycle is one row.
"""

import argparse
import ctypes
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Final

import msgspec
from tqdm import tqdm

from predictor.clock import now
from predictor.lab.bench import processes
from predictor.lab.bench.machine import describe
from predictor.lab.bench.results import Workload
from predictor.lab.bench.running import Running, first_image, request, started
from predictor.lab.bench.sides import lean_side

_LOOK: Final = 0.002  # seconds between two looks at the processes and the memory
_PATIENCE: Final = 30.0
_MIB: Final = 2**20


class Cycle(msgspec.Struct, frozen=True, kw_only=True):
    """One sleep, in seconds; `process_gone` and `memory_free` count from when the engine had idled for long enough.

    `memory_free` is when the GPU has no more in use than before the server was started; null without one.
    """

    process_gone: float
    memory_free: float | None
    picture_before: float  # a request to the engine awake
    picture_after: float  # to the one asleep
    held_bytes: int | None  # on the GPU, by the engine awake


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """`first_image` is of the server's own start, in seconds since its process was spawned."""

    machine: dict[str, str | int]
    workload: Workload
    sleep_after_seconds: float
    first_image: float
    cycles: list[Cycle]


def main(argv: Sequence[str]) -> int:
    """Print and write the cycles; returns 0."""
    parser = argparse.ArgumentParser(
        prog="python -m predictor.lab.sleeping",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("bundle", type=Path, help="folder that `sdzero bake` made")
    parser.add_argument("--device", choices=("cpu", "cuda"), required=True)
    parser.add_argument("--size", type=int, default=512, help="height and width in pixels (default %(default)s)")
    parser.add_argument("--steps", type=int, default=50, help="denoising steps (default %(default)s)")
    parser.add_argument("--after", type=float, default=0.5, help="--sleep-after-seconds of it (default %(default)s)")
    parser.add_argument("--cycles", type=int, default=5)
    parser.add_argument("--json", type=Path, help="write the report here as well")
    given = parser.parse_args(argv)
    workload = Workload(
        model=given.bundle.name, steps=given.steps, guidance_scale=7.5, height=given.size, width=given.size
    )
    report = measure(given.bundle, given.device, workload, given.after, given.cycles)
    for name in ("process_gone", "memory_free", "picture_before", "picture_after"):
        if None not in (values := [getattr(cycle, name) for cycle in report.cycles]):
            print(f"{name:15} {median(values):6.3f} s   {min(values):.3f} to {max(values):.3f}")
    if given.json:
        given.json.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=1) + b"\n")
    return 0


def measure(bundle: Path, device: str, workload: Workload, after: float, cycles: int) -> Report:
    """Start a server of its own, and let it sleep and wake so many times."""
    awake = lean_side(bundle)

    def command(*place: object) -> list[str]:
        return [*awake.command(*place), "--sleep-after-seconds", str(after)]  # type: ignore[arg-type]

    used = _gpu_meter() if device == "cuda" else None
    before = used() if used else 0
    with started(replace(awake, command=command), bundle, device) as running:
        first = first_image(running, workload, 0, 0).first_image
        seeds = tqdm(range(1, cycles + 1), "sleeping", unit="cycle")
        found = [_cycle(running, workload, seed, after, used, before) for seed in seeds]
    return Report(
        machine=describe(device),
        workload=workload,
        sleep_after_seconds=after,
        first_image=first,
        cycles=found,
    )


def _cycle(
    running: Running, workload: Workload, seed: int, after: float, used: Callable[[], int] | None, before: int
) -> Cycle:
    request(running, workload, seed, 1)  # awake, whatever it was
    picture_before = request(running, workload, seed, 1)
    due = now() + after
    held = used() - before if used else None
    awake = len(processes.members(running.process.pid))
    gone = free = None
    while gone is None or (used and free is None):
        at = now()
        if at - due > _PATIENCE:
            raise RuntimeError(f"an engine that should sleep since {_PATIENCE:g} s still holds a process or memory")
        if gone is None and len(processes.members(running.process.pid)) < awake:
            gone = at
        if used and free is None and used() <= before + _MIB:
            free = at
        time.sleep(_LOOK)
    return Cycle(
        process_gone=gone - due,
        memory_free=free - due if free is not None else None,
        picture_before=picture_before,
        picture_after=request(running, workload, seed, 1),
        held_bytes=held,
    )


def _gpu_meter() -> Callable[[], int]:
    """Bytes in use on the first GPU, by whomever: NVML's nvmlDeviceGetMemoryInfo, for nvidia-smi takes too long."""

    class Memory(ctypes.Structure):
        _fields_ = (("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong))

    nvml = ctypes.CDLL("libnvidia-ml.so.1")
    device, memory = ctypes.c_void_p(), Memory()

    def check(code: int) -> None:
        if code:
            raise RuntimeError(f"NVML: error {code}")

    def used() -> int:
        check(nvml.nvmlDeviceGetMemoryInfo(device, ctypes.byref(memory)))
        return int(memory.used)

    check(nvml.nvmlInit_v2())
    check(nvml.nvmlDeviceGetHandleByIndex_v2(0, ctypes.byref(device)))
    return used


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
