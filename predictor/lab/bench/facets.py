"""What is measured: cold start, one warm picture, pictures per request, load. The sides take turns in each facet."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from predictor.lab.bench.arrivals import burst, poisson
from predictor.lab.bench.results import CONCURRENT, Latency, LoadRun, Raw, SideName, burst_rates
from predictor.lab.bench.running import Running, drive, first_image, request, started
from predictor.lab.bench.sides import Side

Say = Callable[[str], None]
T = TypeVar("T")


def cold(sides: Sequence[Side], model: Path, device: str, raw: Raw, trials: int, say: Say) -> None:
    """Start each side `trials` times. Trial 0 fills the page cache and the bytecode files, and is left out."""
    for trial in range(trials + 1):
        for side in _turn(sides, trial):
            with started(side, model, device) as running:
                sample = first_image(running, raw.workload, trial, seed=trial)
            say(f"cold {trial}/{trials} {side.name}: {sample.first_image:.2f} s{'' if trial else ' (left out)'}")
            if trial:
                raw.cold.append(sample)


def warm_up(servers: Sequence[Running], raw: Raw, say: Say) -> None:
    """Wait until each server has made its first pictures, one at a time."""
    for running in servers:
        first_image(running, raw.workload, 0, seed=0)
        for seed in range(2):
            request(running, raw.workload, seed, 1)
        say(f"{running.side.name}: warm")


def single(servers: Sequence[Running], raw: Raw, repeats: int, say: Say) -> None:
    """One picture at a time."""
    for repeat in range(repeats):
        for running in _turn(servers, repeat):
            seconds = request(running, raw.workload, repeat, 1)
            raw.latency.append(Latency(side=running.side.name, facet="single", images=1, seconds=seconds))
            say(f"single {repeat + 1}/{repeats} {running.side.name}: {seconds:.3f} s")


def batch(servers: Sequence[Running], raw: Raw, sizes: Sequence[int], repeats: int, say: Say) -> None:
    """Several pictures in one request; the first of each size is left out, for it plans and allocates."""
    for images in sizes:
        for repeat in range(repeats + 1):
            for running in _turn(servers, repeat):
                seconds = request(running, raw.workload, 100 * repeat, images)
                if repeat:
                    raw.latency.append(Latency(side=running.side.name, facet="batch", images=images, seconds=seconds))
                    say(f"batch of {images}, {repeat}/{repeats} {running.side.name}: {seconds:.3f} s")


def load(servers: Sequence[Running], raw: Raw, bursts: int, arrivals: int, share: float, say: Say) -> None:
    """Bursts of 16, then Poisson arrivals at `share` of what each side did in its bursts; both sides get both rates."""
    for running in servers:
        drive(running, raw.workload, burst(CONCURRENT), first_seed=0)
    for number in range(bursts):
        for running in _turn(servers, number):
            run = _driven(running, raw, f"burst of {CONCURRENT}", None, burst(CONCURRENT))
            say(f"{run.schedule} {number + 1}/{bursts} {run.side}: {run.achieved_rate:.2f} pictures/s")
    capacities: list[tuple[SideName, float]] = [
        (running.side.name, max(rates)) for running in servers if (rates := burst_rates(raw, running.side.name))
    ]
    for name, capacity in sorted(capacities, key=lambda pair: pair[1]):
        rate = share * capacity
        for running in servers:
            schedule = f"Poisson at {share:.0%} of {name}"
            run = _driven(running, raw, schedule, rate, poisson(rate, arrivals, seed=1))
            say(f"{schedule} ({rate:.2f}/s) {run.side}: {run.achieved_rate:.2f} pictures/s")


def _driven(running: Running, raw: Raw, name: str, rate: float | None, schedule: Sequence[float]) -> LoadRun:
    arrivals = drive(running, raw.workload, schedule, first_seed=0)
    run = LoadRun(side=running.side.name, schedule=name, requested_rate=rate, arrivals=arrivals)
    raw.load.append(run)
    return run


def _turn(sides: Sequence[T], number: int) -> list[T]:
    # Whoever goes second finds a warmer chip and a cleaner cache, so they swap.
    return list(sides) if number % 2 == 0 else list(reversed(sides))
