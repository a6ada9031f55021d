"""`sdzero bench`: run a comparison, write a snapshot to run it on, turn results into tables and plots."""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from predictor.clock import now
from predictor.lab.bench.architectures import ARCHITECTURES

SIDES: Final = ("plain", "compile", "eager", "lean")
FACETS: Final = ("cold", "single", "load", "memory", "cold_dropped", "batch", "poisson")  # in the order of a run


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status."""
    arguments = _parser().parse_args(argv)
    command: int = arguments.run(arguments)
    return command


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="sdzero bench", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    run = commands.add_parser("run", help="measure the predictor beside the usual diffusers handler")
    run.set_defaults(run=_run)
    run.add_argument("--model", type=Path, required=True, help="folder in diffusers format")
    run.add_argument("--device", choices=("cpu", "cuda"), required=True)
    run.add_argument("--name", required=True, help="of the result file, NAME.json")
    run.add_argument("--out", type=Path, default=Path("docs/measurements"), help="folder of the result file")
    run.add_argument("--bundle", type=Path, help="folder that `sdzero bake` wrote of the model, for the side lean")
    run.add_argument("--sides", type=_names(SIDES), metavar="SIDE,…", help=f"of {', '.join(SIDES)}; all by default")
    run.add_argument("--only", type=_names(FACETS), default=FACETS, metavar="FACET,…", help=f"of {', '.join(FACETS)}")
    run.add_argument(
        "--budget", type=_whole, metavar="SECONDS", help="begin no sample later than this; none by default"
    )
    run.add_argument("--steps", type=_whole, default=50, help="denoising steps of an image")
    run.add_argument("--guidance-scale", type=float, default=7.5)
    run.add_argument("--size", type=_whole, default=512, help="height and width in pixels")
    run.add_argument("--trials", type=_whole, default=5, help="cold starts of each side, after one that is left out")
    run.add_argument("--compile-trials", type=_whole, default=1, help="the same of the side compile, minutes each")
    run.add_argument("--dropped-trials", type=_whole, default=3, help="cold starts with the page cache dropped")
    run.add_argument("--repeats", type=_whole, default=15, help="warm single images of each side")
    run.add_argument("--batch-repeats", type=_whole, default=3, help="requests of each batch size")
    run.add_argument("--batches", type=_sizes, default=(1, 2, 4, 8), metavar="N,…", help="images in one request")
    run.add_argument("--bursts", type=_whole, default=3, help="bursts of each number of requests")
    run.add_argument("--concurrency", type=_sizes, default=(1, 4, 16, 32), metavar="N,…", help="requests in a burst")
    run.add_argument("--arrivals", type=_whole, default=32, help="requests of each Poisson schedule")
    run.add_argument("--load-share", type=float, default=0.7, help="Poisson rate over the measured throughput")
    run.add_argument("--commit", help="if git cannot tell on this machine")
    run.add_argument("--plot", action="store_true", help="draw NAME.png beside the result")

    snapshot = commands.add_parser("snapshot", help="write a model folder: true architecture, random weights")
    snapshot.set_defaults(run=_snapshot)
    snapshot.add_argument("out", type=Path)
    snapshot.add_argument("--architecture", choices=tuple(ARCHITECTURES), required=True)
    snapshot.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where the weights are drawn")
    snapshot.add_argument("--seed", type=int, default=0)

    edge = commands.add_parser("edge", help="measure one edge process: start, memory, cache hits, refusals")
    edge.set_defaults(run=_edge)
    edge.add_argument("--model", type=Path, required=True, help="folder in diffusers format, for the one picture")
    edge.add_argument("--name", required=True, help="of the result file, NAME.json")
    edge.add_argument("--out", type=Path, default=Path("docs/measurements/edge"), help="folder of the result file")
    edge.add_argument("--rounds", type=_whole, default=5, help="of each kind of request, in turn")
    edge.add_argument("--seconds", type=_whole, default=3, help="of one round")
    edge.add_argument("--connections", type=_whole, default=16, help="kept alive, each with one request at a time")
    edge.add_argument("--commit", help="if git cannot tell on this machine")

    report = commands.add_parser("report", help="write benchmarks.md and plots from result files")
    report.set_defaults(run=_report)
    report.add_argument("measurements", type=Path)
    report.add_argument("--out", type=Path, required=True)
    report.add_argument("--readme", type=Path, help="file whose table of figures is written anew")
    return parser


def _run(arguments: argparse.Namespace) -> int:
    from predictor.lab.bench import machine
    from predictor.lab.bench.bundle import describe
    from predictor.lab.bench.run import run

    if arguments.sides is None:
        arguments.sides = SIDES if arguments.bundle else tuple(side for side in SIDES if side != "lean")
    commit = arguments.commit or machine.commit()
    refusal = _refusal(arguments, commit)
    if refusal or commit is None:
        print(refusal, file=sys.stderr)
        return 2
    try:
        facts = describe(arguments.bundle) if arguments.bundle else None
    except ValueError as error:
        print(f"--bundle: {error}", file=sys.stderr)
        return 2
    return run(arguments, _shown(arguments), commit, facts)


def _refusal(arguments: argparse.Namespace, commit: str | None) -> str | None:
    if commit is None:
        return "--commit: missing; there is no git here to ask"
    if not (arguments.model / "model_index.json").is_file():
        return f"--model: {arguments.model} holds no model_index.json"
    if "lean" in arguments.sides and arguments.bundle is None:
        return "--bundle: missing; the side lean serves a bundle that `sdzero bake` wrote of this model"
    if arguments.bundle and "lean" not in arguments.sides:
        return f"--bundle: only the side lean reads it; got --sides {','.join(arguments.sides)}"
    if arguments.bundle and not arguments.bundle.is_dir():
        return f"--bundle: {arguments.bundle} is no folder"
    if "poisson" in arguments.only and "load" not in arguments.only:
        return f"--only: poisson takes its rates from load; got {','.join(arguments.only)}"
    return None


def _snapshot(arguments: argparse.Namespace) -> int:
    begin = now()
    from predictor.lab.bench.snapshot import write_snapshot

    deviations = write_snapshot(arguments.out, arguments.architecture, arguments.device, arguments.seed)
    shown = ", ".join(f"{name} {deviation:.2f}" for name, deviation in deviations.items())
    print(f"{arguments.architecture} written in {now() - begin:.1f} s; standard deviations: {shown}")
    return 0


def _edge(arguments: argparse.Namespace) -> int:
    from predictor.lab.bench import edge, machine

    commit = arguments.commit or machine.commit()
    if commit is None or not (arguments.model / "model_index.json").is_file():
        wrong = "--commit: missing; there is no git here to ask"
        print(wrong if commit is None else f"--model: {arguments.model} holds no model_index.json", file=sys.stderr)
        return 2
    amount = {name: getattr(arguments, name) for name in ("rounds", "seconds", "connections")}
    words = ["sdzero bench edge --model", arguments.model.resolve().name, "--name", arguments.name]
    command = " ".join([*words, *(f"--{name} {value}" for name, value in amount.items())])
    try:
        measured = edge.measure(arguments.model, command=command, commit=commit, **amount)
    except RuntimeError as error:
        print(f"sdzero bench edge: {error}", file=sys.stderr)
        return 1
    edge.write(arguments.out / f"{arguments.name}.json", measured)
    print(edge.table(measured))
    return 0


def _report(arguments: argparse.Namespace) -> int:
    from predictor.lab.bench.report import write_report

    try:
        for path in write_report(arguments.measurements, arguments.out, arguments.readme):
            print(path)
    except ValueError as error:
        print(f"sdzero bench report: {error}", file=sys.stderr)
        return 2
    return 0


def _shown(arguments: argparse.Namespace) -> str:
    """The command that repeats this run; folders by name alone, for results hold no paths."""
    words = ["sdzero", "bench", "run", "--model", arguments.model.resolve().name]
    if arguments.bundle:
        words += ["--bundle", arguments.bundle.resolve().name]
    if arguments.budget:
        words += ["--budget", str(arguments.budget)]
    for name in (
        *("device", "name", "only", "sides", "steps", "guidance_scale", "size", "trials", "compile_trials"),
        *("dropped_trials", "repeats", "batch_repeats", "batches", "bursts", "concurrency", "arrivals", "load_share"),
    ):
        value = getattr(arguments, name)
        shown = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
        words += ["--" + name.replace("_", "-"), shown]
    return " ".join(words)


def _names(allowed: Sequence[str]) -> Callable[[str], tuple[str, ...]]:
    def names(text: str) -> tuple[str, ...]:
        chosen = tuple(text.split(","))
        if not set(chosen) <= set(allowed):
            raise argparse.ArgumentTypeError(f"got {text!r}; allowed: {', '.join(allowed)}")
        return chosen

    return names


def _sizes(text: str) -> tuple[int, ...]:
    return tuple(_whole(part) for part in text.split(","))


def _whole(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"got {text!r}; allowed: whole numbers from 1")
    return int(text)
