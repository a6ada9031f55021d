"""When sleeping pays: what a picture costs by how busy one dedicated GPU would be."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from predictor.lab.sim.configurations import knative_plain, knative_plain_one, sdzero, sdzero_short
from predictor.lab.sim.cost import Price, bill
from predictor.lab.sim.trace import generate
from predictor.lab.sim.world import Configuration, World

PER_HOUR: Final = (1, 2, 4, 8, 15, 30, 60, 120, 240, 480, 900)  # requests of one picture, 30 steps
_ARRIVALS: Final = 1500  # of each rate: the standard error of a mean over gaps is below 3 %


@dataclass(frozen=True)
class Point:
    """One rate: US dollars per 1000 pictures, dedicated and asleep between requests."""

    per_hour: float
    dedicated_busy: float  # share of its time in which a dedicated server with the plain handler would compute
    dedicated: float
    serverless: dict[str, float]

    def saving(self, name: str) -> float:
        """Share of the dedicated server's cost that serving on demand saves; below 0 it costs more."""
        return 1 - self.serverless[name] / self.dedicated


def points(rent: Price, on_demand: Price, seed: int, rates: Sequence[float] = PER_HOUR) -> list[Point]:
    """Poisson arrivals at each rate, each simulated long enough; the same arrivals for all configurations."""
    found = []
    for per_hour in rates:
        hours = _ARRIVALS / per_hour
        trace = generate(f"poisson:rate={per_hour / 3600},hours={hours}", seed)
        costs, busy = {}, 0.0
        for configuration in compared():
            run = World(trace, configuration, seed).run()
            costs[configuration.name] = 1000 * bill(run.pod_lives, on_demand) / len(trace.at)
            if configuration.name == "knative-plain":
                busy = run.busy_seconds / trace.seconds
        dedicated = 1000 * bill([trace.seconds], rent) / len(trace.at)
        found.append(Point(per_hour, busy, dedicated, costs))
    return found


def compared() -> list[Configuration]:
    """The configurations that a dedicated server is compared with."""
    return [knative_plain(), knative_plain_one(), sdzero(), sdzero_short()]


def crossing(found: Sequence[Point], name: str, saving: float = 0.0) -> float | None:
    """Requests an hour up to which at least `saving` is saved, interpolated between two rates; None: at none."""
    last: float | None = None
    for before, after in itertools.pairwise(found):
        high, low = before.saving(name), after.saving(name)
        if high >= saving > low:
            last = before.per_hour + (after.per_hour - before.per_hour) * (high - saving) / (high - low)
    if last is None and found[-1].saving(name) >= saving:
        return found[-1].per_hour
    return last


def table(found: Sequence[Point]) -> str:
    """A Markdown table of savings."""
    names = list(found[0].serverless)
    lines = [
        "| requests an hour | dedicated GPU is busy | dedicated, $ per 1000 | " + " | ".join(names) + " |",
        "| " + " | ".join(["---"] * (3 + len(names))) + " |",
    ]
    for point in found:
        shown = [f"{point.serverless[name]:.2f} ({point.saving(name):+.0%} saved)" for name in names]
        row = [f"{point.per_hour:g}", f"{point.dedicated_busy:.2%}", f"{point.dedicated:.2f}", *shown]
        lines.append("| " + " | ".join(row) + " |")
    return "\n".join(lines)
