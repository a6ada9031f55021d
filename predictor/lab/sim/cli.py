"""`sdzero simulate` replays a trace against configurations and prices them; `sdzero plan` searches settings."""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from predictor.clock import now
from predictor.lab.bench.machine import commit
from predictor.lab.sim import arguments as options
from predictor.lab.sim import plan as planning
from predictor.lab.sim import results
from predictor.lab.sim.configurations import CONFIGURATIONS, changed
from predictor.lab.sim.cost import Price
from predictor.lab.sim.kpa import Autoscaling
from predictor.lab.sim.world import Run, World
from predictor.lab.typed import typed


def simulate(argv: Sequence[str] | None = None) -> int:
    """`sdzero simulate TRACE`; returns the exit status."""
    parser = options.parser(
        "simulate", "Replay a trace against a model of Knative's autoscaler, and say what it costs."
    )
    parser.add_argument("trace", metavar="TRACE", help=options.PROCESSES)
    options.add_world(parser)
    parser.add_argument(
        "--config",
        type=options.names,
        default=("always-on", "knative-plain", "sdzero"),
        metavar="NAME,…",
        help=f"of {', '.join(CONFIGURATIONS)}; default always-on,knative-plain,sdzero",
    )
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="of sdzero's autoscaling")
    parser.add_argument(
        "--sleep-after",
        type=float,
        metavar="SECONDS",
        help="idle seconds after which sdzero's engine ends; default never",
    )
    parser.add_argument("--out", type=Path, metavar="FILE.json", help="write everything down")
    parser.add_argument("--plot", type=Path, metavar="FILE.png", help="draw latencies and GPUs held")
    parser.add_argument("--break-even", type=Path, metavar="FILE.png", help="draw when sleeping pays; takes a minute")
    parser.add_argument("--on-demand-price", metavar="NAME", help="of what sleeps, in the break-even; default --price")
    arguments = parser.parse_args(argv)
    try:
        return _simulate(arguments, typed("sdzero simulate", sys.argv[2:] if argv is None else argv))
    except (ValueError, OSError) as error:
        print(f"sdzero simulate: {error}", file=sys.stderr)
        return 2


def plan(argv: Sequence[str] | None = None) -> int:
    """`sdzero plan --trace … --slo p95=4s`; returns the exit status: 1 if nothing keeps the objective."""
    parser = options.parser("plan", "Search the settings that hold least of a GPU for a trace and a latency.")
    parser.add_argument("--trace", required=True, help=options.PROCESSES)
    parser.add_argument(
        "--config",
        choices=[name for name, make in CONFIGURATIONS.items() if make().predictor.name == "lean"],
        default="sdzero",
        help="what to begin with; default sdzero",
    )
    parser.add_argument("--slo", required=True, metavar="p95=4s", help="percentile (or mean) and time to keep")
    options.add_world(parser)
    for name, values in planning.CANDIDATES.items():
        shown = ",".join(f"{value:g}" for value in values)
        flag = "--" + name.replace("_", "-")
        parser.add_argument(flag, type=options.numbers, default=values, metavar="N,…", help=f"to try; default {shown}")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="for plan.json, pareto.png and values.yaml")
    arguments = parser.parse_args(argv)
    try:
        return _plan(arguments, typed("sdzero plan", sys.argv[2:] if argv is None else argv))
    except (ValueError, OSError) as error:
        print(f"sdzero plan: {error}", file=sys.stderr)
        return 2


def _simulate(arguments: argparse.Namespace, command: str) -> int:
    trace, price = options.trace_of(arguments), options.price_of(arguments, arguments.price)
    runs: dict[str, Run] = {}
    summaries = []
    for name in arguments.config:
        configuration = options.placed(CONFIGURATIONS[name](), arguments)
        if configuration.predictor.name == "lean":
            for text in arguments.set:
                configuration = replace(configuration, autoscaling=changed(configuration.autoscaling, text))
            if arguments.sleep_after is not None:
                configuration = replace(configuration, engine_sleeps_after=arguments.sleep_after)
        began = now()
        with options.bar(len(trace.at), name) as bar:
            runs[name] = World(trace, configuration, arguments.seed).run(bar.update)
        print(f"{name}: {len(trace.at) / (now() - began):,.0f} requests simulated a second", file=sys.stderr)
        summaries.append(results.summarise(trace, configuration, runs[name], price))
    print(results.table(summaries))
    for words, ratio in results.ratios(summaries).items():
        print(f"{words}: {ratio:.2f}x")
    if arguments.out:
        results.write(
            arguments.out,
            results.Simulation(
                command=command,
                commit=commit() or "unknown",
                date=datetime.now(UTC).isoformat(timespec="seconds"),
                trace=options.facts(trace),
                seed=arguments.seed,
                price=price,
                ratios=results.ratios(summaries),
                summaries=summaries,
            ),
        )
    if arguments.plot:
        from predictor.lab.sim.plots import compare

        compare(runs, f"{trace.name}: {len(trace.at):,} requests", arguments.plot)
    if arguments.break_even:
        _break_even(arguments, price, options.price_of(arguments, arguments.on_demand_price or arguments.price))
    return 0


def _break_even(arguments: argparse.Namespace, rent: Price, on_demand: Price) -> None:
    from predictor.lab.sim import breakeven
    from predictor.lab.sim.plots import draw_break_even

    found = breakeven.points(rent, on_demand, arguments.seed)
    shown = [f"{price.name}, {price.usd_per_gpu_hour:.2f} $ per GPU-hour" for price in (rent, on_demand)]
    print(f"\nDedicated: {shown[0]}. What sleeps: {shown[1]}.\n\n{breakeven.table(found)}\n")
    for name in found[0].serverless:
        for saving, words in ((0.0, "costs less than a dedicated server"), (0.92, "saves 92 %")):
            rate = breakeven.crossing(found, name, saving)
            print(
                f"{name} {words}: {'at none of these rates' if rate is None else f'up to {rate:.1f} requests an hour'}"
            )
    draw_break_even(found, arguments.break_even)


def _plan(arguments: argparse.Namespace, command: str) -> int:
    objective = planning.Objective.parse(arguments.slo)
    trace, price = options.trace_of(arguments), options.price_of(arguments, arguments.price)
    base = options.placed(CONFIGURATIONS[arguments.config](), arguments)

    def trial(autoscaling: Autoscaling) -> results.Summary:
        configuration = replace(base, autoscaling=autoscaling)
        return results.summarise(trace, configuration, World(trace, configuration, arguments.seed).run(), price)

    candidates = {name: getattr(arguments, name) for name in planning.CANDIDATES}
    start = base.autoscaling
    for name, given in candidates.items():
        if len(given) == 1:  # then nothing else is tried on the way
            start = changed(start, f"{name}={given[0]:g}")
    with options.bar(1, "settings tried") as bar:

        def progress(done: int, total: int) -> None:
            bar.total, bar.n = total, done
            bar.refresh()

        best, trials = planning.search(start, candidates, objective, trial, progress)
    front = planning.pareto(trials, objective)
    values = planning.values(best.autoscaling)
    print(planning.table(front, objective, best))
    print(f"\n{len(trials)} settings tried, {len(front)} on the front.\n\n{values}", end="")
    if arguments.out:
        from predictor.lab.sim.plots import draw_plan

        found: dict[str, Any] = {"command": command, "commit": commit() or "unknown", "seed": arguments.seed}
        found |= {
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "trace": options.facts(trace),
            "slo": arguments.slo,
        }
        found |= {"chosen": best.summary, "tried": [trial.summary for trial in trials]}
        results.write(arguments.out / "plan.json", found)
        (arguments.out / "values.yaml").write_text(values, encoding="utf-8")
        draw_plan(trials, best, objective, f"{trace.name}, {arguments.slo}", arguments.out / "pareto.png")
    if objective.met(best.summary):
        return 0
    print(f"sdzero plan: nothing that was tried keeps {arguments.slo}", file=sys.stderr)
    return 1
