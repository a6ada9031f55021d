"""`python -m tests.edge.chaos`: break a small deployment of real parts under load, and see whether the books add up."""

import argparse
import asyncio
import contextlib
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.edge.chaos.run import chaos
from tests.edge.chaos.world import World
from tests.parts.part import Missing
from tests.parts.postgresql import PostgreSQL
from tests.parts.redis_server import RedisServer
from tests.parts.s3 import S3


def main() -> int:
    """Run once; returns 0 if it all adds up. Exits with 2 where a part is not installed."""
    parser = argparse.ArgumentParser(prog="python -m tests.edge.chaos", description=__doc__.partition(": ")[2])
    parser.add_argument("--seconds", type=float, default=300.0, help="of load and faults [default: %(default)g]")
    parser.add_argument(
        "--seed", type=int, default=1, help="of both; moments differ all the same [default: %(default)s]"
    )
    parser.add_argument("--out", type=Path, help="JSON file for the counts")
    parser.add_argument("--keep", type=Path, help="folder for the parts' data and logs [default: a temporary one]")
    given = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = given.keep or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sdzero-chaos-")))
        parts: list[Any] = []
        for name, kind in (("postgresql", PostgreSQL), ("redis", RedisServer), ("s3", S3)):
            (folder / name).mkdir(parents=True)
            try:
                parts.append(kind(folder / name))
            except Missing as missing:
                parser.exit(2, f"{missing}\n")
            stack.callback(parts[-1].kill)
        world = World(folder, *parts)
        stack.callback(world.close)
        found = asyncio.run(chaos(world, given.seconds, given.seed))
    print(found.table())
    if given.out:
        given.out.write_text(json.dumps({"counts": found.counts, "complaints": found.complaints}, indent=2) + "\n")
    return 1 if found.complaints else 0


if __name__ == "__main__":
    sys.exit(main())
