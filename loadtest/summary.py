"""A run in numbers: what the JSON file says, what requirements are about, and what the report shows; pure."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from loadtest.phases import ColdStart
from loadtest.quantiles import Estimate, Latencies
from loadtest.requirements import Figure
from loadtest.samples import Sample, books
from predictor.lab.sim.cost import Price, bill

SHARES: Final = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99, "max": 1.0}


class Spread(msgspec.Struct, frozen=True, kw_only=True):
    """A group's latencies: exact percentiles with 95 % intervals, in seconds from the intended start."""

    count: int
    censored: int  # of them; a client gave them up, and a percentile that falls on one is `at_least`
    mean: Estimate
    quantiles: dict[str, Estimate]


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """What the pictures cost. Without access to the cluster only computing is known, and nothing of the idle tail."""

    images: int
    busy_seconds_per_image: float | None  # of the device, as answers tell
    gpu_seconds: float | None = None  # lives of pods, from their creation to their end
    gpu_seconds_per_image: float | None = None
    usd_per_1000_images: float | None = None
    price: str | None = None


class TargetSummary(msgspec.Struct, frozen=True, kw_only=True):
    """One target of a run."""

    requests: int
    attempts: int
    outcomes: dict[str, int]
    latency: dict[str, Spread]  # by group: all, cold, warm, cached; from zero also cycle
    parts: dict[str, Spread]  # of cold starts
    cost: Cost
    images_per_second: float


def summarise(
    attempts: Sequence[Sample],
    last: Sequence[Sample],
    starts: Sequence[ColdStart],
    *,
    from_zero: bool,
    lives: Sequence[float] | None,
    price: Price | None,
) -> TargetSummary:
    """One target's numbers.

    Args:
        attempts: all of them.
        last: the last of each request: its outcome.
        starts: cold starts, in parts.
        from_zero: whether there are cycles, whose requests depend on each other.
        lives: seconds that each pod held its GPU, None where nobody could see them.
        price: of a GPU.
    """
    ok = [sample for sample in last if sample.outcome == "ok"]
    names = dict.fromkeys(part.name for start in starts for part in start.parts)
    return TargetSummary(
        requests=len(last),
        attempts=len(attempts),
        outcomes={outcome: count for outcome, count in books(last).items()},  # noqa: C416
        latency=_groups(last, from_zero),
        parts={name: _spread(Latencies.of([start.part(name) for start in starts])) for name in names},
        cost=_cost(ok, lives, price),
        images_per_second=sum(sample.images for sample in ok) / _busy(last),
    )


def figures(targets: Mapping[str, TargetSummary], lateness: Spread, unexplained: float | None) -> dict[str, Figure]:
    """Everything that a requirement can be about, by name. Of two targets the names begin with `a.` and `b.`."""
    found: dict[str, Figure] = {}
    for target, summary in targets.items():
        prefix = f"{target}." if len(targets) > 1 else ""
        found[f"{prefix}requests"] = Figure(summary.requests)
        found[f"{prefix}attempts"] = Figure(summary.attempts)
        for outcome, count in summary.outcomes.items():
            found[f"{prefix}{outcome}"] = Figure(count)
            found[f"{prefix}{outcome}.share"] = Figure(count / max(1, summary.requests))
        unwell = sum(count for outcome, count in summary.outcomes.items() if outcome not in ("ok", "refused"))
        found[f"{prefix}errors"] = Figure(unwell / max(1, summary.requests))
        found[f"{prefix}images_per_second"] = Figure(summary.images_per_second)
        for group, spread in summary.latency.items():
            found |= _of_spread(f"{prefix}{group}", spread)
        for name, spread in summary.parts.items():
            found |= _of_spread(f"{prefix}phase.{name}", spread)
        for name, value in msgspec.structs.asdict(summary.cost).items():
            if isinstance(value, (int, float)):
                found[f"{prefix}cost.{name}"] = Figure(value)
    found |= _of_spread("lateness", lateness)
    if unexplained is not None:
        found["unexplained"] = Figure(unexplained)
    return found


def lateness(samples: Sequence[Sample]) -> Spread:
    """By how much the generator itself missed intended starts: of first attempts."""
    return _spread(Latencies.of([max(0.0, sample.lateness) for sample in samples if sample.attempt == 0]))


def unexplained(starts: Sequence[ColdStart]) -> float | None:
    """The share of all cold starts' seconds that nobody reports, counted without its sign."""
    whole = sum(start.seconds for start in starts)
    return sum(abs(start.part("unexplained")) for start in starts) / whole if whole else None


def group_of(sample: Sample) -> str:
    """Which group an answered request belongs to: cached, cold or warm."""
    return "cached" if sample.cache == "hit" else "cold" if sample.cold else "warm"


def latencies(last: Sequence[Sample], group: str, *, from_zero: bool) -> Latencies | None:
    """Those of a group, or of `all`; None without any.

    Nobody knows how the requests that were given up would have been answered: they count wherever they may belong.
    """
    members = [s for s in last if s.outcome == "ok" and group in ("all", group_of(s))]
    gave_up = [s for s in last if s.outcome == "timeout" and group != "cached"]
    if not members and not (gave_up and group == "all"):
        return None
    cycles = [sample.cycle for sample in (*members, *gave_up)] if from_zero else None
    return Latencies.of([s.latency for s in members], [s.latency for s in gave_up], cycles)


def _groups(last: Sequence[Sample], from_zero: bool) -> dict[str, Spread]:
    found = {name: latencies(last, name, from_zero=from_zero) for name in ("all", "cold", "warm", "cached")}
    if from_zero:
        found["cycle"] = _cycles(last)
    return {name: _spread(one) for name, one in found.items() if one is not None}


def _cycles(last: Sequence[Sample]) -> Latencies | None:
    """From the first intended start of a cycle until all of its requests have their pictures."""
    whole: dict[int, list[Sample]] = {}
    for sample in last:
        whole.setdefault(sample.cycle, []).append(sample)
    done, given_up = [], []
    for samples in whole.values():
        seconds = max(s.finished for s in samples) - min(s.intended for s in samples)
        if all(sample.outcome == "ok" for sample in samples):
            done.append(seconds)
        elif any(sample.outcome == "timeout" for sample in samples):
            given_up.append(seconds)
    return Latencies.of(done, given_up) if done or given_up else None


def _spread(found: Latencies) -> Spread:
    return Spread(
        count=len(found),
        censored=found.censored,
        mean=found.mean(),
        quantiles={name: found.estimate(share) for name, share in SHARES.items()},
    )


def _cost(ok: Sequence[Sample], lives: Sequence[float] | None, price: Price | None) -> Cost:
    images = sum(sample.images for sample in ok)
    told = [sample for sample in ok if sample.gpu_seconds is not None]
    made = sum(sample.images for sample in told)
    busy = sum(sample.gpu_seconds or 0.0 for sample in told) / made if made else None
    if lives is None or not images:
        return Cost(images=images, busy_seconds_per_image=busy)
    usd = bill(lives, price) if price else None
    return Cost(
        images=images,
        busy_seconds_per_image=busy,
        gpu_seconds=math.fsum(lives),
        gpu_seconds_per_image=math.fsum(lives) / images,
        usd_per_1000_images=None if usd is None else 1000 * usd / images,
        price=None if price is None else price.name,
    )


def _busy(last: Sequence[Sample]) -> float:
    """Seconds between first intended start and last end of each cycle, summed: waiting for zero is no work."""
    spans: dict[int, tuple[float, float]] = {}
    for sample in last:
        begin, end = spans.get(sample.cycle, (sample.intended, sample.finished))
        spans[sample.cycle] = (min(begin, sample.intended), max(end, sample.finished))
    return max(1e-9, sum(end - begin for begin, end in spans.values()))


def _of_spread(name: str, spread: Spread) -> dict[str, Figure]:
    found = {f"{name}.count": Figure(spread.count), f"{name}.censored": Figure(spread.censored)}
    for figure, estimate in {"mean": spread.mean, **spread.quantiles}.items():
        found[f"{name}.{figure}"] = Figure(estimate.value, estimate.at_least)
        found[f"{name}.{figure}.low"] = Figure(estimate.low)
        found[f"{name}.{figure}.high"] = Figure(estimate.high, estimate.high_at_least)
    return found


def plain(value: Any) -> Any:
    """As JSON can hold it, floats to six digits: less than any of them knows."""
    value = msgspec.to_builtins(value)
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [plain(inner) for inner in value]
    return round(value, 6) if isinstance(value, float) else value
