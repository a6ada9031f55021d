"""`sdzero bench`: run a comparison, write a snapshot to run it on, turn results into tables and plots."""

import argparse
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from predictor.clock import now
from predictor.lab.bench.architectures import ARCHITECTURES
from predictor.lab.bench.results import Raw, Result, Workload, ratios, write
from predictor.lab.bench.sides import OURS, PLAIN, Side

FACETS: Final = ("cold", "single", "batch", "load")


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status."""
    arguments = _parser().parse_args(argv)
    command: int = arguments.run(arguments)
    return command


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="sdzero bench", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    run = commands.add_parser("run", help="measure the predictor beside the plain diffusers handler")
    run.set_defaults(run=_run)
    run.add_argument("--model", type=Path, required=True, help="folder in diffusers format")
    run.add_argument("--device", choices=("cpu", "cuda"), required=True)
    run.add_argument("--name", required=True, help="of the result file, NAME.json")
    run.add_argument("--out", type=Path, default=Path("docs/measurements"), help="folder of the result file")
    run.add_argument("--only", type=_names(FACETS), default=FACETS, metavar="FACET,…", help=f"of {', '.join(FACETS)}")
    run.add_argument("--sides", type=_names(("ours", "plain")), default=("ours", "plain"), metavar="SIDE,…")
    run.add_argument("--steps", type=_whole, default=50, help="denoising steps of an image")
    run.add_argument("--guidance-scale", type=float, default=7.5)
    run.add_argument("--size", type=_whole, default=512, help="height and width in pixels")
    run.add_argument("--trials", type=_whole, default=5, help="cold starts of each side, after one that is left out")
    run.add_argument("--repeats", type=_whole, default=15, help="warm single images of each side")
    run.add_argument("--batch-repeats", type=_whole, default=3, help="requests of each batch size")
    run.add_argument("--batches", type=_sizes, default=(1, 2, 4, 8), metavar="N,…", help="images in one request")
    run.add_argument("--bursts", type=_whole, default=3, help="bursts of 16 requests against each side")
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

    report = commands.add_parser("report", help="write benchmarks.md and plots from result files")
    report.set_defaults(run=_report)
    report.add_argument("measurements", type=Path)
    report.add_argument("--out", type=Path, required=True)
    return parser


def _run(arguments: argparse.Namespace) -> int:
    from predictor.lab.bench import machine, report

    commit = arguments.commit or machine.commit()
    if commit is None:
        print("--commit: missing; there is no git here to ask", file=sys.stderr)
        return 2
    if not (arguments.model / "model_index.json").is_file():
        print(f"--model: {arguments.model} holds no model_index.json", file=sys.stderr)
        return 2
    sides = [side for side in (OURS, PLAIN) if side.name in arguments.sides]
    workload = Workload(
        model=arguments.model.resolve().name,
        steps=arguments.steps,
        guidance_scale=arguments.guidance_scale,
        height=arguments.size,
        width=arguments.size,
    )
    result = Result(
        command=_shown(arguments),
        commit=commit,
        machine=machine.describe(arguments.device) | {"page_cache": "warm"},
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        ratios={},
        raw=Raw(workload=workload),
    )
    path = arguments.out / f"{arguments.name}.json"
    begin = now()

    def say(line: str) -> None:
        print(f"[{now() - begin:6.1f} s] {line}", file=sys.stderr, flush=True)

    def save() -> None:
        # After every facet: a run that is cut short leaves what it had measured.
        result.ratios = ratios(result.raw)
        write(path, result)
        say(f"wrote {path}: {result.ratios}")

    failure = None
    try:
        _measure(arguments, sides, result.raw, say, save)
    except RuntimeError as error:
        failure = error
    save()
    if arguments.plot:
        report.plot(result, path.with_suffix(".png"))
    print(report.tables(arguments.name, result))
    if failure:
        print(f"stopped early: {failure}", file=sys.stderr)
    return 1 if failure else 0


def _measure(
    arguments: argparse.Namespace, sides: Sequence[Side], raw: Raw, say: Callable[[str], None], save: Callable[[], None]
) -> None:
    from predictor.lab.bench import facets
    from predictor.lab.bench.running import started

    if "cold" in arguments.only:
        facets.cold(sides, arguments.model, arguments.device, raw, arguments.trials, say)
        save()
    if set(arguments.only) - {"cold"}:
        with ExitStack() as stack:
            servers = [stack.enter_context(started(side, arguments.model, arguments.device)) for side in sides]
            facets.warm_up(servers, raw, say)
            if "single" in arguments.only:
                facets.single(servers, raw, arguments.repeats, say)
                save()
            if "load" in arguments.only:
                facets.load(servers, raw, arguments.bursts, arguments.arrivals, arguments.load_share, say)
                save()
            if "batch" in arguments.only:
                facets.batch(servers, raw, arguments.batches, arguments.batch_repeats, say)


def _snapshot(arguments: argparse.Namespace) -> int:
    begin = now()
    from predictor.lab.bench.snapshot import write_snapshot

    deviations = write_snapshot(arguments.out, arguments.architecture, arguments.device, arguments.seed)
    shown = ", ".join(f"{name} {deviation:.2f}" for name, deviation in deviations.items())
    print(f"{arguments.architecture} written in {now() - begin:.1f} s; standard deviations: {shown}")
    return 0


def _report(arguments: argparse.Namespace) -> int:
    from predictor.lab.bench.report import write_report

    for path in write_report(arguments.measurements, arguments.out):
        print(path)
    return 0


def _shown(arguments: argparse.Namespace) -> str:
    """The command that repeats this run; the model's folder by name alone, for results hold no paths."""
    words = ["sdzero", "bench", "run", "--model", arguments.model.resolve().name]
    for name in (
        *("device", "name", "only", "sides", "steps", "guidance_scale", "size", "trials", "repeats"),
        *("batch_repeats", "batches", "bursts", "arrivals", "load_share"),
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
