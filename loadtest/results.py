"""What a run leaves for machines: `summary.json`. Nothing in it names a host, a path or a key."""

import os
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import msgspec

from loadtest import samples
from loadtest.comparison import Comparison, compare
from loadtest.job import TargetSpec
from loadtest.phases import ColdStart
from loadtest.requirements import Figure, Requirement
from loadtest.run import Held, Run, local_time, seconds_held
from loadtest.samples import Sample
from loadtest.scenarios import Scenario
from loadtest.summary import Spread, TargetSummary, figures, latencies, lateness, plain, summarise, unexplained
from predictor.lab.sim.cost import Price

LATE: Final = 0.01  # seconds


class Gate(msgspec.Struct, frozen=True, kw_only=True):
    """A requirement and whether it was met; `got` is what the figure was."""

    text: str
    met: bool
    got: float | None
    at_least: bool = False
    problem: str = ""


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """A target, as far as others may know it."""

    dialect: str
    model: str


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """The file."""

    command: str
    commit: str
    date: str  # ISO 8601, UTC
    scenario_name: str
    scenario: Scenario
    seed: int
    asked: dict[str, Asked]
    generator: dict[str, str | int]
    zeros: dict[str, int]
    missing: list[str]
    warnings: list[str]  # against believing the figures
    requirements: list[Gate]
    comparisons: list[Comparison]
    lateness: Spread
    unexplained: float | None
    targets: dict[str, TargetSummary]
    figures: dict[str, Figure]
    starts: list[ColdStart]
    held: list[Held] | None

    @property
    def met(self) -> bool:
        """Whether all requirements are."""
        return all(gate.met for gate in self.requirements)


def result(
    run: Run,
    *,
    name: str,
    targets: Mapping[str, TargetSpec],
    requirements: Sequence[Requirement],
    price: Price | None,
    command: str,
    commit: str,
) -> Result:
    """Everything that is known of a run."""
    last = samples.outcomes(run.attempts)
    summaries = {
        target: summarise(
            [sample for sample in run.attempts if sample.target == target],
            [sample for sample in last if sample.target == target],
            [start for start in run.starts if start.target == target],
            from_zero=run.scenario.from_zero,
            lives=seconds_held(run, target),
            price=price,
        )
        for target in targets
    }
    late, nobody = lateness(run.attempts), unexplained(run.starts)
    found = figures(summaries, late, nobody)
    return Result(
        command=command,
        commit=commit,
        date=local_time(run.started.epoch),
        scenario_name=name,
        scenario=_without_path(run.scenario),
        seed=run.seed,
        asked={target: Asked(dialect=spec.dialect, model=spec.model) for target, spec in targets.items()},
        generator=machine(),
        zeros=run.zeros,
        missing=run.missing,
        warnings=_warnings(run, late),
        requirements=[_gate(requirement, found) for requirement in requirements],
        comparisons=_compare(last, summaries, run.scenario.from_zero) if len(targets) > 1 else [],
        lateness=late,
        unexplained=nobody,
        targets=summaries,
        figures=found,
        starts=run.starts,
        held=run.held,
    )


def write(path: Path, found: Result) -> None:
    """One key a line, for diffs."""
    document: dict[str, Any] = plain(found) | {"met": found.met}
    path.write_bytes(msgspec.json.format(msgspec.json.encode(document), indent=1) + b"\n")


def machine() -> dict[str, str | int]:
    """Where the generator ran, without saying whose machine it is."""
    return {"python": platform.python_version(), "locust": version("locust"), "cpu_count": os.cpu_count() or 0}


def _gate(requirement: Requirement, found: Mapping[str, Figure]) -> Gate:
    try:
        met = requirement.met(found)
    except ValueError as error:
        return Gate(text=requirement.text, met=False, got=None, problem=str(error))
    figure = found[requirement.name]
    return Gate(text=requirement.text, met=met, got=figure.value, at_least=figure.at_least)


def _compare(last: Sequence[Sample], summaries: Mapping[str, TargetSummary], from_zero: bool) -> list[Comparison]:
    found = []
    one, other = summaries
    for group in summaries[one].latency:
        if group == "cycle":
            continue
        a, b = (
            latencies([s for s in last if s.target == target], group, from_zero=from_zero) for target in (one, other)
        )
        if a is not None and b is not None:
            found += [compare(f"{group}.{name}", share, a, b) for name, share in (("p50", 0.5), ("p95", 0.95))]
    return found


def _warnings(run: Run, late: Spread) -> list[str]:
    found = [f"The run broke off: {run.broken}."] if run.broken else []
    p99 = late.quantiles["p99"].value
    if p99 > LATE:
        found.append(
            f"The generator itself began requests late, p99 {1000 * p99:.0f} ms: its machine was busy. "
            "Latencies contain that, and are no better than an upper bound."
        )
    return found


def _without_path(scenario: Scenario) -> Scenario:
    path = getattr(scenario.arrivals, "path", None)
    if path is None:
        return scenario
    return msgspec.structs.replace(scenario, arrivals=msgspec.structs.replace(scenario.arrivals, path=Path(path).name))
