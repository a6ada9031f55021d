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
from predictor.lab.sim import plan as planning
from predictor.lab.sim import results
from predictor.lab.sim.cluster import Pool
from predictor.lab.sim.configurations import CONFIGURATIONS, changed
from predictor.lab.sim.cost import Price, read_prices
from predictor.lab.sim.edge import EdgeCache
from predictor.lab.sim.kpa import Autoscaling
from predictor.lab.sim.trace import Trace, generate, read
from predictor.lab.sim.world import Configuration, Run, World

PROCESSES = "a CSV file, or a process: poisson:rate=0.1,hours=24; diurnal:rate=0.1,peak=1.8; burst:size=16,every=600"


def simulate(argv: Sequence[str] | None = None) -> int:
    """`sdzero simulate TRACE`; returns the exit status."""
    parser = _parser("simulate", "Replay a trace against a model of Knative's autoscaler, and say what it costs.")
    parser.add_argument("trace", metavar="TRACE", help=PROCESSES)
    _add_world(parser)
    parser.add_argument(
        "--config",
        type=_names,
        default=("always-on", "knative-plain", "sdzero"),
        metavar="NAME,…",
        help=f"of {', '.join(CONFIGURATIONS)}; default always-on,knative-plain,sdzero",
    )
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="of sdzero's autoscaling")
    parser.add_argument("--out", type=Path, metavar="FILE.json", help="write everything down")
    parser.add_argument("--plot", type=Path, metavar="FILE.png", help="draw latencies and GPUs held")
    parser.add_argument("--break-even", type=Path, metavar="FILE.png", help="draw when sleeping pays; takes a minute")
    parser.add_argument("--on-demand-price", metavar="NAME", help="of what sleeps, in the break-even; default --price")
    arguments = parser.parse_args(argv)
    try:
        return _simulate(arguments, _typed("simulate", argv))
    except (ValueError, OSError) as error:
        print(f"sdzero simulate: {error}", file=sys.stderr)
        return 2


def plan(argv: Sequence[str] | None = None) -> int:
    """`sdzero plan --trace … --slo p95=4s`; returns the exit status: 1 if nothing keeps the objective."""
    parser = _parser("plan", "Search the settings that hold least of a GPU for a trace and a latency.")
    parser.add_argument("--trace", required=True, help=PROCESSES)
    parser.add_argument("--slo", required=True, metavar="p95=4s", help="percentile (or mean) and time to keep")
    _add_world(parser)
    for name, values in planning.CANDIDATES.items():
        shown = ",".join(f"{value:g}" for value in values)
        flag = "--" + name.replace("_", "-")
        parser.add_argument(flag, type=_numbers, default=values, metavar="N,…", help=f"to try; default {shown}")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="for plan.json, pareto.png and values.yaml")
    arguments = parser.parse_args(argv)
    try:
        return _plan(arguments, _typed("plan", argv))
    except (ValueError, OSError) as error:
        print(f"sdzero plan: {error}", file=sys.stderr)
        return 2


def _simulate(arguments: argparse.Namespace, command: str) -> int:
    trace, price = _trace(arguments), _price(arguments, arguments.price)
    runs: dict[str, Run] = {}
    summaries = []
    for name in arguments.config:
        configuration = _placed(CONFIGURATIONS[name](), arguments)
        if configuration.predictor.name == "lean":
            for text in arguments.set:
                configuration = replace(configuration, autoscaling=changed(configuration.autoscaling, text))
        began = now()
        with _bar(len(trace.at), name) as bar:
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
                trace=_facts(trace),
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
        _break_even(arguments, price, _price(arguments, arguments.on_demand_price or arguments.price))
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
    trace, price = _trace(arguments), _price(arguments, arguments.price)
    base = _placed(CONFIGURATIONS["sdzero"](), arguments)

    def trial(autoscaling: Autoscaling) -> results.Summary:
        configuration = replace(base, autoscaling=autoscaling)
        return results.summarise(trace, configuration, World(trace, configuration, arguments.seed).run(), price)

    candidates = {name: getattr(arguments, name) for name in planning.CANDIDATES}
    start = base.autoscaling
    for name, given in candidates.items():
        if len(given) == 1:  # then nothing else is tried on the way
            start = changed(start, f"{name}={given[0]:g}")
    with _bar(1, "settings tried") as bar:

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
        found |= {"date": datetime.now(UTC).isoformat(timespec="seconds"), "trace": _facts(trace), "slo": arguments.slo}
        found |= {"chosen": best.summary, "tried": [trial.summary for trial in trials]}
        results.write(arguments.out / "plan.json", found)
        (arguments.out / "values.yaml").write_text(values, encoding="utf-8")
        draw_plan(trials, best, objective, f"{trace.name}, {arguments.slo}", arguments.out / "pareto.png")
    if objective.met(best.summary):
        return 0
    print(f"sdzero plan: nothing that was tried keeps {arguments.slo}", file=sys.stderr)
    return 1


def _parser(name: str, description: str) -> argparse.ArgumentParser:
    return argparse.ArgumentParser(prog=f"sdzero {name}", description=description, allow_abbrev=False)


def _add_world(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--models", choices=("one", "separate"), default="one", help="one service for all, or each its own"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--price", default="h100-rented", help="name in the table of prices")
    parser.add_argument("--prices", type=Path, metavar="FILE.json", help="a table of prices instead of ours")
    parser.add_argument("--nodes", type=_range, metavar="MIN,MAX", help="GPU nodes; a GPU is always free by default")
    parser.add_argument("--gpus-per-node", type=int, default=1)
    parser.add_argument("--provision", type=_range, default=(60, 90), metavar="MIN,MAX", help="seconds to a new node")
    parser.add_argument("--pull", type=float, default=0.0, metavar="SECONDS", help="of the image on a new node")
    parser.add_argument("--consolidate-after", type=float, default=600.0, metavar="SECONDS", help="an idle node goes")
    parser.add_argument(
        "--repeat-share", type=float, default=0.0, help="answered by the edge; for traces without identities"
    )


def _placed(configuration: Configuration, arguments: argparse.Namespace) -> Configuration:
    edge = EdgeCache(repeat_share=arguments.repeat_share) if configuration.edge else None
    if arguments.nodes is None:
        return replace(configuration, edge=edge)
    low, high = arguments.nodes
    pool = Pool(
        gpus_per_node=arguments.gpus_per_node,
        min_nodes=low,
        max_nodes=high,
        provision=arguments.provision,
        pull=arguments.pull,
        consolidate_after=arguments.consolidate_after,
    )
    return replace(configuration, edge=edge, pool=pool)


def _trace(arguments: argparse.Namespace) -> Trace:
    path = Path(arguments.trace)
    trace = read(path) if path.is_file() else generate(arguments.trace, arguments.seed)
    return trace.merged() if arguments.models == "one" else trace


def _price(arguments: argparse.Namespace, name: str) -> Price:
    prices = read_prices(arguments.prices)
    if name not in prices:
        raise ValueError(f"--price: got {name!r}; allowed: {', '.join(prices)}")
    return prices[name]


def _facts(trace: Trace) -> dict[str, Any]:
    return {
        "name": trace.name,
        "requests": len(trace.at),
        "images": int(trace.images.sum()),
        "models": len(trace.models),
        "seconds": trace.seconds,
    }


def _typed(command: str, argv: Sequence[str] | None) -> str:
    """What was typed; files by name alone, for results hold no paths."""
    words = list(sys.argv[2:] if argv is None else argv)
    return " ".join(["sdzero", command, *(Path(word).name if "/" in word else word for word in words)])


def _bar(total: int, words: str) -> Any:
    from tqdm import tqdm

    return tqdm(total=total, desc=words, file=sys.stderr, leave=False, disable=None)


def _names(text: str) -> tuple[str, ...]:
    chosen = tuple(text.split(","))
    if not set(chosen) <= set(CONFIGURATIONS):
        raise argparse.ArgumentTypeError(f"got {text!r}; allowed: {', '.join(CONFIGURATIONS)}")
    return chosen


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"got {text!r}; allowed: numbers with commas between them") from None


def _range(text: str) -> tuple[int, int]:
    parts = text.split(",")
    if len(parts) != 2 or not all(part.isdecimal() for part in parts):
        raise argparse.ArgumentTypeError(f"got {text!r}; allowed: two whole numbers: 0,4")
    return int(parts[0]), int(parts[1])
