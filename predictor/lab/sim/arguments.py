"""What `sdzero simulate` and `sdzero plan` are both asked, and what it is made into."""

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from predictor.lab.sim.cluster import Pool
from predictor.lab.sim.configurations import CONFIGURATIONS
from predictor.lab.sim.cost import Price, read_prices
from predictor.lab.sim.edge import EdgeCache
from predictor.lab.sim.trace import Trace, generate, read
from predictor.lab.sim.world import Configuration

PROCESSES: Final = (
    "a CSV file, or a process: poisson:rate=0.1,hours=24; diurnal:rate=0.1,peak=1.8; burst:size=16,every=600"
)


def parser(name: str, description: str) -> argparse.ArgumentParser:
    """Of one of the two commands."""
    return argparse.ArgumentParser(prog=f"sdzero {name}", description=description, allow_abbrev=False)


def add_world(parser: argparse.ArgumentParser) -> None:
    """The machines, the prices, and what is the same for all configurations."""
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


def placed(configuration: Configuration, arguments: argparse.Namespace) -> Configuration:
    """`configuration` on the machines that were asked for."""
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


def trace_of(arguments: argparse.Namespace) -> Trace:
    """The file, or the process drawn with the seed."""
    path = Path(arguments.trace)
    trace = read(path) if path.is_file() else generate(arguments.trace, arguments.seed)
    return trace.merged() if arguments.models == "one" else trace


def price_of(arguments: argparse.Namespace, name: str) -> Price:
    """The price of this name.

    Raises:
        ValueError: there is none.
    """
    prices = read_prices(arguments.prices)
    if name not in prices:
        raise ValueError(f"--price: got {name!r}; allowed: {', '.join(prices)}")
    return prices[name]


def facts(trace: Trace) -> dict[str, Any]:
    """What a result says of its trace."""
    return {
        "name": trace.name,
        "requests": len(trace.at),
        "images": int(trace.images.sum()),
        "models": len(trace.models),
        "seconds": trace.seconds,
    }


def bar(total: int, words: str) -> Any:
    """A bar of progress, where somebody looks."""
    from tqdm import tqdm

    return tqdm(total=total, desc=words, file=sys.stderr, leave=False, disable=None)


def names(text: str) -> tuple[str, ...]:
    """Configurations, with commas between them."""
    chosen = tuple(text.split(","))
    if not set(chosen) <= set(CONFIGURATIONS):
        raise argparse.ArgumentTypeError(f"got {text!r}; allowed: {', '.join(CONFIGURATIONS)}")
    return chosen


def numbers(text: str) -> tuple[float, ...]:
    """Numbers, with commas between them."""
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"got {text!r}; allowed: numbers with commas between them") from None


def _range(text: str) -> tuple[int, int]:
    parts = text.split(",")
    if len(parts) != 2 or not all(part.isdecimal() for part in parts):
        raise argparse.ArgumentTypeError(f"got {text!r}; allowed: two whole numbers: 0,4")
    return int(parts[0]), int(parts[1])
