"""What a simulation says, and the file that it leaves: docs/measurements/simulations."""

from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from predictor.lab.sim.configurations import told
from predictor.lab.sim.cost import Price, bill_run
from predictor.lab.sim.trace import Trace
from predictor.lab.sim.world import Configuration, Outcome, Run


class Latency(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds from a request's arrival to its answer, of those that were answered; exact percentiles (nearest rank)."""

    mean: float
    p50: float
    p90: float
    p95: float
    p99: float
    longest: float


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """One configuration's run in numbers."""

    name: str
    predictor: str
    settings: dict[str, Any]  # of the autoscaler, where they are not Knative's defaults
    engine_sleeps_after: float | None
    requests: int
    images: int  # that were delivered
    outcomes: dict[str, int]
    latency: Latency
    cold_share: float  # of requests: no pod was ready when they came
    pods: int  # that held a GPU
    gpu_seconds: float  # lives of pods, from the GPU's assignment to the end of termination
    gpu_seconds_per_image: float
    engine_seconds_per_image: float  # of them, with an engine's process on the GPU
    busy_seconds_per_image: float  # of them, computing
    node_seconds: float | None  # None: the pool is unbounded
    price: str
    usd: float
    usd_per_1000_images: float


class Simulation(msgspec.Struct, frozen=True, kw_only=True):
    """A file of docs/measurements/simulations."""

    command: str
    commit: str
    date: str  # ISO 8601, UTC
    trace: dict[str, Any]
    seed: int
    price: Price
    ratios: dict[str, float]  # the other divided by ours; above 1 is better
    summaries: list[Summary]


def summarise(trace: Trace, configuration: Configuration, run: Run, price: Price) -> Summary:
    """The numbers of a run.

    Raises:
        ValueError: no request was answered.
    """
    outcomes = np.array(run.outcomes)
    answered = np.isin(outcomes, (Outcome.DRAWN, Outcome.CACHED, Outcome.JOINED))
    if not answered.any():
        raise ValueError(f"{configuration.name}: none of {len(outcomes)} requests was answered")
    waited = np.sort(np.array(run.latencies)[answered])
    images = int(trace.images[answered].sum())
    ended = Counter(run.outcomes)
    usd = bill_run(run, configuration.pool, price)
    return Summary(
        name=configuration.name,
        predictor=configuration.predictor.name,
        settings=told(configuration.autoscaling),
        engine_sleeps_after=configuration.engine_sleeps_after,
        requests=len(outcomes),
        images=images,
        outcomes={outcome.name.lower(): ended[outcome] for outcome in Outcome if outcome is not Outcome.OPEN},
        latency=Latency(
            mean=float(waited.mean()),
            longest=float(waited[-1]),
            **{f"p{share}": float(waited[-(-len(waited) * share // 100) - 1]) for share in (50, 90, 95, 99)},
        ),
        cold_share=sum(run.cold) / len(run.cold),
        pods=len(run.pod_lives),
        gpu_seconds=sum(run.pod_lives),
        gpu_seconds_per_image=sum(run.pod_lives) / images,
        engine_seconds_per_image=run.engine_seconds / images,
        busy_seconds_per_image=run.busy_seconds / images,
        node_seconds=sum(run.node_lives) if run.node_lives else None,
        price=price.name,
        usd=usd,
        usd_per_1000_images=1000 * usd / images,
    )


def lost(summary: Summary) -> int:
    """Requests without their pictures."""
    return summary.outcomes["timed_out"] + summary.outcomes["refused"]


def ratios(summaries: list[Summary]) -> dict[str, float]:
    """What others hold of GPUs for a picture, over what this product holds; of the configurations that were run."""
    held = {summary.name: summary.gpu_seconds_per_image for summary in summaries}
    pairs = [(other, ours) for ours in held for other in held if ours.startswith("sdzero") > other.startswith("sdzero")]
    return {f"gpu_seconds_per_image: {other} / {ours}": round(held[other] / held[ours], 3) for other, ours in pairs}


def table(summaries: list[Summary]) -> str:
    """A Markdown table."""
    lines = [
        "| configuration | GPU-s per image | with an engine | p50 | p95 | p99 | cold | pods | lost | $ per 1000 |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    lines += [
        f"| {s.name} | {s.gpu_seconds_per_image:.2f} | {s.engine_seconds_per_image:.2f} | {s.latency.p50:.2f} s "
        f"| {s.latency.p95:.2f} s | {s.latency.p99:.2f} s | {s.cold_share:.1%} | {s.pods} | {lost(s)} "
        f"| {s.usd_per_1000_images:.2f} |"
        for s in summaries
    ]
    return "\n".join(lines)


def write(path: Path, found: Any) -> None:
    """One key a line, for diffs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(_rounded(found)), indent=1) + b"\n")


def _rounded(value: Any) -> Any:
    """Floats to six digits: less than any of them knows."""
    value = msgspec.to_builtins(value)
    if isinstance(value, dict):
        return {key: _rounded(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_rounded(inner) for inner in value]
    return round(value, 6) if isinstance(value, float) else value
