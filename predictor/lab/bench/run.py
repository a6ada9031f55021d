"""`sdzero bench run`: every facet that was asked for, the file after every sample, and what is missing in the end."""

import argparse
import math
import sys
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from predictor.clock import now
from predictor.lab.bench import facets, machine
from predictor.lab.bench.eviction import python_folders
from predictor.lab.bench.figures import ratios
from predictor.lab.bench.plots import plot
from predictor.lab.bench.results import BundleFacts, Raw, Result, Workload, write
from predictor.lab.bench.session import Session, Unmeasured
from predictor.lab.bench.sides import choose
from predictor.lab.bench.tables import tables

MEASURE: Final[dict[str, Callable[[Session, argparse.Namespace], None]]] = {
    "cold": lambda session, given: facets.cold(session, given.trials, given.compile_trials),
    "single": lambda session, given: facets.single(session, given.repeats),
    "load": lambda session, given: facets.load(session, given.concurrency, given.bursts),
    "memory": lambda session, _: facets.memory(session),
    "cold_dropped": lambda session, given: facets.cold_dropped(
        session, given.dropped_trials, [[given.model], [given.bundle] if given.bundle else [], python_folders()]
    ),
    "batch": lambda session, given: facets.batch(session, given.batches, given.batch_repeats),
    "poisson": lambda session, given: facets.poisson(session, given.arrivals, given.load_share),
}


def run(arguments: argparse.Namespace, command: str, commit: str, bundle: BundleFacts | None) -> int:
    """Measure, write NAME.json, print its tables; returns the exit status: 1 if a side failed."""
    begin = now()
    result = Result(
        command=command,
        commit=commit,
        machine=machine.describe(arguments.device),
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        ratios={},
        raw=Raw(
            workload=Workload(
                model=arguments.model.resolve().name,
                steps=arguments.steps,
                guidance_scale=arguments.guidance_scale,
                height=arguments.size,
                width=arguments.size,
            ),
            bundle=bundle,
        ),
    )
    path = arguments.out / f"{arguments.name}.json"
    skipped: list[str] = []

    def say(line: str) -> None:
        print(f"[{now() - begin:6.1f} s] {line}", file=sys.stderr, flush=True)

    with tempfile.TemporaryDirectory() as compiled:

        def save() -> None:
            result.ratios = ratios(result)
            result.missing = [*session.failures.values(), *skipped]
            write(path, result)

        deadline = math.inf if arguments.budget is None else begin + arguments.budget
        sides = choose(arguments.sides, arguments.bundle, Path(compiled) / "inductor")
        session = Session(sides, arguments.model, arguments.device, result.raw, say, save, deadline)
        try:
            for facet, measure in MEASURE.items():
                if facet in arguments.only:
                    try:
                        measure(session, arguments)
                    except Unmeasured as why:
                        skipped.append(str(why))
                        say(str(why))
                    save()
                    say(f"{facet}: wrote {path}: {result.ratios}")
        finally:
            session.stop(*session.sides)
    if arguments.plot:
        plot(result, path.with_suffix(".png"))
    print(tables(arguments.name, result))
    for line in result.missing:
        print(f"missing: {line}", file=sys.stderr)
    return 1 if session.failures else 0
