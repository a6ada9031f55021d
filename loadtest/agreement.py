"""How far the simulator is off: `python -m loadtest.agreement RUN`, of a run that was watched on a cluster.

The run's own arrivals are simulated with the deployment's settings and with step times and starts that were measured on
that cluster in other runs, many times over: each time starts are drawn anew, and the moment within the autoscaler's two
seconds at which the run begins. Exits with 1 if p50, p95, pod-seconds or replica-seconds are off by more than --within.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np

from loadtest import pods, samples
from loadtest.replays import Curve, Figures, Played, curve, measured, simulated
from loadtest.results import Result
from loadtest.summary import plain
from predictor.lab.bench.machine import commit
from predictor.lab.sim.configurations import CONFIGURATIONS, changed, told
from predictor.lab.sim.world import Configuration
from predictor.lab.typed import typed

AGREED: Final = ("p50", "p95", "pod_seconds", "replica_seconds")


class Simulated(msgspec.Struct, frozen=True, kw_only=True):
    """A figure over all worlds: the median, and what 95 % of them lie between."""

    value: float
    low: float
    high: float


class Apart(msgspec.Struct, frozen=True, kw_only=True):
    """Counts over time: the mean of |measured - simulated| over the mean of measured.

    `expected` is the same with a world in the place of the cluster, the median of all: what chance alone keeps apart.
    """

    found: float
    expected: float


class Agreement(msgspec.Struct, frozen=True, kw_only=True):
    """The file."""

    command: str
    commit: str
    run: dict[str, Any]
    configuration: str
    settings: dict[str, Any]  # of the autoscaler, where they are not Knative's defaults
    drain: float
    teardown: float
    predictor: dict[str, Any]
    worlds: int
    measured: Figures
    simulated: dict[str, Simulated]
    ratios: dict[str, float]  # simulated over measured
    pods_apart: Apart
    replicas_apart: Apart
    within: float
    agrees: dict[str, bool]


def apart(real: Curve, worlds: Sequence[Curve]) -> Apart:
    """See `Apart`; a single run is compared with the mean of all worlds."""
    mean = np.mean(worlds, axis=0)

    def distance(one: Curve) -> float:
        return float(np.abs(one - mean).mean() / one.mean())

    return Apart(found=distance(real), expected=float(np.median([distance(world) for world in worlds])))


def agree(
    real: Played, worlds: Sequence[Played], within: float
) -> tuple[dict[str, Simulated], dict[str, float], dict[str, bool]]:
    """Figures of all worlds, their ratios to the real ones, and which of `AGREED` are within the bound."""
    truth = msgspec.structs.asdict(real.figures)
    drawn = [msgspec.structs.asdict(world.figures) for world in worlds]
    found = {}
    for name in truth:
        low, value, high = np.percentile([one[name] for one in drawn], (2.5, 50, 97.5))
        found[name] = Simulated(value=float(value), low=float(low), high=float(high))
    ratios = {name: found[name].value / truth[name] for name in truth}
    return found, ratios, {name: abs(ratios[name] - 1) <= within for name in AGREED}


def main(argv: Sequence[str]) -> int:
    """Print and write how a run agrees with its simulation; returns 0 if it does, 1 if not, 2 for what cannot be."""
    arguments = _parser().parse_args(argv)
    try:
        return _compare(arguments, argv)
    except (ValueError, OSError) as error:
        print(f"python -m loadtest.agreement: {error}", file=sys.stderr)
        return 2


def _compare(arguments: argparse.Namespace, argv: Sequence[str]) -> int:
    result = _result(arguments.run)
    found = samples.read(arguments.run / "samples.csv")
    if result.held is None:
        raise ValueError(f"{arguments.run.name}/summary.json: held: got null; allowed: a run with --kubeconfig")
    configuration = _configuration(arguments)
    real = measured(found, result.held)
    worlds = [simulated(found, configuration, seed) for seed in range(arguments.worlds)]
    figures, ratios, agrees = agree(real, worlds, arguments.within)
    ends = [until for played in (real, *worlds) for _, until in played.pods]
    seconds = int(max(ends)) + 1
    curves = {
        name: (curve(getattr(real, name), seconds), [curve(getattr(world, name), seconds) for world in worlds])
        for name in ("pods", "replicas")
    }
    document = Agreement(
        command=typed("python -m loadtest.agreement", argv),
        commit=commit() or "unknown",
        run={
            "commit": result.commit,
            "date": result.date,
            "requests": len(real.latencies),
        },
        configuration=configuration.name,
        settings=told(configuration.autoscaling),
        drain=configuration.drain,
        teardown=configuration.teardown,
        predictor=msgspec.to_builtins(configuration.predictor),
        worlds=arguments.worlds,
        measured=real.figures,
        simulated=figures,
        ratios=ratios,
        pods_apart=apart(*curves["pods"]),
        replicas_apart=apart(*curves["replicas"]),
        within=arguments.within,
        agrees=agrees,
    )
    print(table(document))
    if arguments.out:
        arguments.out.write_bytes(msgspec.json.format(msgspec.json.encode(plain(document)), indent=1) + b"\n")
    if arguments.plot:
        from loadtest.agreement_plot import draw

        draw(real, worlds, curves, arguments.title or arguments.run.name, arguments.plot)
    return 0 if all(agrees.values()) else 1


def table(found: Agreement) -> str:
    """A Markdown table."""
    lines = ["| | measured | simulated | ratio | |", "| --- | --- | --- | --- | --- |"]
    for name, one in found.simulated.items():
        verdict = {True: "agrees", False: "DOES NOT AGREE", None: ""}[found.agrees.get(name)]
        lines.append(
            f"| {name} | {getattr(found.measured, name):.2f} | {one.value:.2f} [{one.low:.2f}, {one.high:.2f}] "
            f"| {found.ratios[name]:.3f} | {verdict} |"
        )
    for words, off in (("pods", found.pods_apart), ("replicas", found.replicas_apart)):
        lines.append(f"{words} over time: {off.found:.1%} apart, {off.expected:.1%} by chance alone")
    return "\n".join(lines)


def _configuration(arguments: argparse.Namespace) -> Configuration:
    """Starts hold the platform's share, so it has none of its own; every picture was new, so no edge knows one."""
    base = CONFIGURATIONS[arguments.config]()
    autoscaling = base.autoscaling
    for text in arguments.set:
        autoscaling = changed(autoscaling, text)
    seen = {start.cycle: start for start in _result(arguments.starts).starts if start.target == arguments.target}
    starts = [
        (sample, seen[sample.cycle])
        for sample in samples.read(arguments.starts / "samples.csv")
        if sample.target == arguments.target and sample.cycle in seen
    ]
    warm = [samples.read(folder / "samples.csv") for folder in arguments.warm]
    kind = pods.predictor(base.predictor, warm, starts)
    return replace(base, autoscaling=autoscaling, predictor=kind, floor=(0.0, 0.0), edge=None)


def _result(folder: Path) -> Result:
    return msgspec.json.decode((folder / "summary.json").read_bytes(), type=Result)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m loadtest.agreement", description=__doc__, allow_abbrev=False)
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of a run from zero, with --kubeconfig")
    parser.add_argument(
        "--warm",
        type=Path,
        action="append",
        required=True,
        metavar="FOLDER",
        help="a run of single requests, or several",
    )
    parser.add_argument("--starts", type=Path, required=True, metavar="FOLDER", help="a run of cold-once")
    parser.add_argument("--target", choices=("a", "b"), default="a", help="whose starts these are [%(default)s]")
    parser.add_argument("--config", choices=CONFIGURATIONS, default="sdzero", help="[%(default)s]")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="of the autoscaling")
    parser.add_argument("--worlds", type=int, default=200, help="how often to simulate [%(default)d]")
    parser.add_argument("--within", type=float, default=0.15, help="what counts as agreement [%(default)g]")
    parser.add_argument("--out", type=Path, metavar="FILE.json")
    parser.add_argument("--plot", type=Path, metavar="FILE.png")
    parser.add_argument("--title", default="", help="of the plot")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
