"""The `sdzero` command: one subcommand per process or tool; what is slow to import is imported inside it."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence

from predictor import __version__
from predictor.settings import EngineSettings, ServerSettings, add_arguments, load, refuse_unknown

Command = Callable[[list[str]], int]


def serve_predictor(argv: list[str]) -> int:
    """Serve a model over the v2 protocol (REST and gRPC): the predictor container's main process."""
    parser = _parser("serve-predictor", serve_predictor)
    add_arguments(parser, EngineSettings)
    add_arguments(parser, ServerSettings)
    given = vars(parser.parse_args(argv))
    try:
        refuse_unknown([EngineSettings, ServerSettings], os.environ)
        engine = load(EngineSettings, given, os.environ)
        server = load(ServerSettings, given, os.environ)
    except ValueError as error:
        parser.error(str(error))
    from predictor.server.app import main

    return main(engine, server)


def serve_edge(argv: list[str]) -> int:
    """Serve the APIs that people use, in front of a predictor that may sleep: keys, quotas, cache, jobs, web page."""
    from predictor.edge.settings import EdgeSettings, add_kserve_arguments, as_kserve_says

    parser = _parser("serve-edge", serve_edge)
    add_arguments(parser, EdgeSettings)
    add_kserve_arguments(parser)
    given = vars(parser.parse_args(argv))
    try:
        refuse_unknown([EdgeSettings], os.environ)
        settings = load(EdgeSettings, as_kserve_says(given, os.environ), os.environ)
    except ValueError as error:
        parser.error(str(error))
    from predictor.edge.app import main

    return main(settings)


def keys(argv: list[str]) -> int:
    """Create, list and revoke API keys of the edge."""
    from predictor.edge.keys_cli import main

    return main(argv)


def capabilities(argv: list[str]) -> int:
    """Write down what a model can do, so that the edge can refuse what it cannot without waking it."""
    from predictor.lab.capabilities import main

    return main(argv)


def demo(argv: list[str]) -> int:
    """Start edge and predictor, ask for pictures as a client would, show them and where the cold start's time went."""
    from predictor.lab.demo.cli import main

    return main(argv)


def timeline(argv: list[str]) -> int:
    """Show a running predictor's cold start as a bar chart, or as JSON."""
    from predictor.lab.waterfall import main

    return main(argv)


def watch(argv: list[str]) -> int:
    """Follow the cold starts of an InferenceService live, through the Kubernetes API; wakes nothing."""
    from predictor.cluster.cli import main

    return main(argv)


def bake(argv: list[str]) -> int:
    """Compile a model ahead of time for one kind of machine, so that it starts without importing torch."""
    from predictor.lab.bake.cli import main

    return main(argv)


def inspect(argv: list[str]) -> int:
    """Show what is in a bundle, and whether it fits this machine."""
    from predictor.lab.inspection import main

    return main(argv)


def compare(argv: list[str]) -> int:
    """Draw the same crowd of pictures with a bundle and with its model, and tell how far they are apart."""
    from predictor.lab.comparison import main

    return main(argv)


def bench(argv: list[str]) -> int:
    """Measure the predictor beside a plain diffusers handler, in one run on one machine."""
    from predictor.lab.bench.cli import main

    return main(argv)


def simulate(argv: list[str]) -> int:
    """Replay a trace against a model of Knative's autoscaler, and price it."""
    from predictor.lab.sim.cli import simulate as main

    return main(argv)


def plan(argv: list[str]) -> int:
    """Search the autoscaler's settings for the cheapest that keep a promise."""
    from predictor.lab.sim.cli import plan as main

    return main(argv)


def loadtest(argv: list[str]) -> int:
    """Measure a deployment: open loop, exact percentiles, cold starts in parts, and a report."""
    from loadtest.cli import main

    return main(argv)


def train_shapes(argv: list[str]) -> int:
    """Train the demo model from scratch on drawings made here."""
    from predictor.lab.shapes.train import main

    return main(argv)


def check_shapes(argv: list[str]) -> int:
    """Count how many of the demo model's pictures show what their prompts say."""
    from predictor.lab.shapes.examination import main

    return main(argv)


COMMANDS: dict[str, Command] = {
    "serve-predictor": serve_predictor,
    "serve-edge": serve_edge,
    "keys": keys,
    "capabilities": capabilities,
    "demo": demo,
    "timeline": timeline,
    "watch": watch,
    "bake": bake,
    "inspect": inspect,
    "compare": compare,
    "bench": bench,
    "simulate": simulate,
    "plan": plan,
    "loadtest": loadtest,
    "train-shapes": train_shapes,
    "check-shapes": check_shapes,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand; returns its exit status."""
    given = list(sys.argv[1:] if argv is None else argv)
    width = max(map(len, COMMANDS))
    parser = argparse.ArgumentParser(
        prog="sdzero",
        description="Stable Diffusion on Kubernetes that costs nothing when idle and answers in seconds when it wakes.",
        epilog="commands:\n"
        + "\n".join(f"  {name:{width}}  {command.__doc__}" for name, command in COMMANDS.items())
        + "\n\n`sdzero COMMAND --help` explains each one's options.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"sdzero {__version__}")
    parser.add_argument("command", choices=COMMANDS, metavar="COMMAND", help="one of the commands below")
    # Only what stands before the command is ours; the rest belongs to it.
    known = parser.parse_args(given[:1])
    return COMMANDS[known.command](given[1:])


def _parser(name: str, command: Command) -> argparse.ArgumentParser:
    return argparse.ArgumentParser(
        prog=f"sdzero {name}",
        allow_abbrev=False,
        description=command.__doc__,
        epilog="Each flag can also be given as the environment variable in its brackets; the flag wins.",
    )


if __name__ == "__main__":
    sys.exit(main())
