"""The search for settings: one at a time, until none helps, remembering everything that was tried."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from predictor.lab.sim.kpa import Autoscaling
from predictor.lab.sim.results import Summary, lost

CANDIDATES: Final[dict[str, tuple[float, ...]]] = {
    "window": (6, 15, 30, 35, 45, 60, 120),
    "scale_to_zero_pod_retention_period": (0, 60, 120, 300),
    "scale_down_delay": (0, 30, 60),
    "max_scale": (1, 2, 4, 8),
    "container_concurrency": (4, 16, 32),
    "min_scale": (0, 1),
    "timeout_seconds": (300, 30, 15),
}
_UNITS: Final = {"ms": 0.001, "s": 1.0, "": 1.0, "m": 60.0}
_SCALING: Final = {
    "min_scale": "minReplicas",
    "max_scale": "maxReplicas",
    "container_concurrency": "containerConcurrency",
    "window": "windowSeconds",
    "scale_down_delay": "scaleDownDelaySeconds",
    "scale_to_zero_pod_retention_period": "retentionSeconds",
}


@dataclass(frozen=True)
class Objective:
    """The latency that has to be kept: a percentile and its seconds."""

    percentile: str
    seconds: float

    @classmethod
    def parse(cls, text: str) -> "Objective":
        """From `p95=4s`.

        Raises:
            ValueError: anything else, with what is allowed.
        """
        found = re.fullmatch(r"(p50|p90|p95|p99|mean)=(\d+(?:\.\d+)?)(ms|s|m|)", text)
        if not found or float(found[2]) == 0:
            raise ValueError(f"got {text!r}; allowed: p50, p90, p95, p99 or mean, =, a time in ms, s or m: p95=4s")
        return cls(found[1], float(found[2]) * _UNITS[found[3]])

    def latency(self, summary: Summary) -> float:
        """Seconds."""
        seconds: float = getattr(summary.latency, self.percentile)
        return seconds

    def met(self, summary: Summary) -> bool:
        """Whether it is kept, and no request is lost."""
        return self.latency(summary) <= self.seconds and not lost(summary)

    def cost(self, summary: Summary) -> tuple[bool, float, float]:
        """What is to become small: first that it is met, then GPU-seconds (without it, the latency)."""
        held, latency = summary.gpu_seconds_per_image, self.latency(summary)
        return (False, held, latency) if self.met(summary) else (True, latency, held)


@dataclass(frozen=True)
class Trial:
    """Settings and what they led to."""

    autoscaling: Autoscaling
    summary: Summary


def search(
    start: Autoscaling,
    candidates: Mapping[str, Sequence[float]],
    objective: Objective,
    simulate: Callable[[Autoscaling], Summary],
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> tuple[Trial, list[Trial]]:
    """The best settings that were found, and all that were tried, in order.

    Settings are changed one at a time, in the order of `candidates`, to the value that is best; rounds go on until one
    changes nothing. Deterministic if `simulate` is. `progress` hears how many trials are done and how many a round ends
    with at most.
    """
    tried: dict[Autoscaling, Trial] = {}

    def attempt(autoscaling: Autoscaling) -> Trial:
        if autoscaling not in tried:
            tried[autoscaling] = Trial(autoscaling, simulate(autoscaling))
        return tried[autoscaling]

    best = attempt(start)
    while True:
        before = best
        left = sum(map(len, candidates.values()))
        for name, values in candidates.items():
            for value in values:
                left -= 1
                changed = _with(best.autoscaling, name, value)
                if changed is not None:
                    trial = attempt(changed)
                    if objective.cost(trial.summary) < objective.cost(best.summary):
                        best = trial
                progress(len(tried), len(tried) + left)
        if best is before:
            return best, list(tried.values())


def _with(autoscaling: Autoscaling, name: str, value: float) -> Autoscaling | None:
    """None: the two do not go together, as more pods at least than at most."""
    low = value if name == "min_scale" else autoscaling.min_scale
    high = value if name == "max_scale" else autoscaling.max_scale
    if high and high < low:
        return None
    kind = type(getattr(autoscaling, name))
    return replace(autoscaling, **{name: kind(value)})


def pareto(trials: Sequence[Trial], objective: Objective) -> list[Trial]:
    """Those that no other trial beats in both GPU-seconds and latency, cheapest first; none that lost a request."""
    kept: list[Trial] = []
    complete = [trial for trial in trials if not lost(trial.summary)]
    for trial in sorted(complete, key=lambda t: (t.summary.gpu_seconds_per_image, objective.latency(t.summary))):
        if not kept or objective.latency(trial.summary) < objective.latency(kept[-1].summary):
            kept.append(trial)
    return kept


def values(autoscaling: Autoscaling) -> str:
    """The settings as YAML for the chart; its target utilisation is 100 %, and no value of it."""
    lines = ["predictor:", f"  timeoutSeconds: {autoscaling.timeout_seconds:g}", "  scaling:"]
    lines += [f"    {key}: {getattr(autoscaling, name):g}" for name, key in _SCALING.items()]
    return "\n".join(lines) + "\n"


def table(front: Sequence[Trial], objective: Objective, best: Trial) -> str:
    """The front as Markdown, the chosen one marked."""
    names = [*_SCALING, "timeout_seconds"]
    head = ["", "GPU-s per image", objective.percentile, "cold", *names]
    lines = ["| " + " | ".join(head) + " |", "| " + " | ".join(["---"] * len(head)) + " |"]
    for trial in front:
        summary = trial.summary
        row = ["→" if trial is best else "", f"{summary.gpu_seconds_per_image:.2f}"]
        row += [f"{objective.latency(summary):.2f} s", f"{summary.cold_share:.1%}"]
        row += [f"{getattr(trial.autoscaling, name):g}" for name in names]
        lines.append("| " + " | ".join(row) + " |")
    return "\n".join(lines)
