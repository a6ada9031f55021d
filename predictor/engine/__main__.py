"""`python -m predictor.engine`: started by the server, not by people.

The order of its imports is its speed: what a bundle needs of native code is begun before all that can go on beside it.
"""

import argparse
import sys

import msgspec

from predictor.settings import EngineSettings

SWITCH_SECONDS = 0.0005  # for Python's lock: threads that start a library wait this long for those that import


def main(argv: list[str]) -> int:
    """Begin with the bundle, if there is one; then import the rest and serve."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--address", required=True, help="ZeroMQ endpoint that the server listens on")
    parser.add_argument("--settings", required=True, help="EngineSettings as JSON")
    given = parser.parse_args(argv)
    settings = msgspec.json.decode(given.settings, type=EngineSettings)
    prelude = None
    if settings.bundle:
        sys.setswitchinterval(SWITCH_SECONDS)
        from predictor.engine.baked.native import head_start

        head_start(settings.bundle, settings.threads)
        from predictor.engine.baked.prelude import Prelude

        prelude = Prelude(settings).begin()
        prelude.wait_linked()
    from predictor.engine.loop import serve

    return serve(given.address, settings, prelude)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
