"""`python -m predictor.engine`: started by the server, not by people.

A bundle's threads start before anything is imported that takes longer than they do.
"""

import argparse
import sys

import msgspec

from predictor.settings import EngineSettings


def main(argv: list[str]) -> int:
    """Begin with the bundle, if there is one; then import the rest and serve."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--address", required=True, help="ZeroMQ endpoint that the server listens on")
    parser.add_argument("--settings", required=True, help="EngineSettings as JSON")
    given = parser.parse_args(argv)
    settings = msgspec.json.decode(given.settings, type=EngineSettings)
    prelude = None
    if settings.bundle:
        from predictor.engine.baked.prelude import Prelude

        prelude = Prelude(settings).begin()
    from predictor.engine.loop import serve

    return serve(given.address, settings, prelude)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
