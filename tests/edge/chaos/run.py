"""Load and faults for a while, quiet, and the audit."""

import asyncio
import contextlib
import random
import threading
import time
import zlib
from collections import Counter
from dataclasses import dataclass

from tests.edge.chaos.books import WATCH, Books, busy
from tests.edge.chaos.faults import Breaking
from tests.edge.chaos.load import Client, Key
from tests.edge.chaos.seen import Seen
from tests.edge.chaos.world import World
from tests.edge.http_servers import Answer, Came, web
from tests.processes import wait_until

CLIENTS = 16
LONG = 120.0  # seconds of a run in which an edge may be silent for longer than its leases
QUIET = 240.0  # seconds: the deadline of the last generation, and the last webhook's second try
FLUSHED = 2.0  # seconds until an edge that is up has written down what it noted
CONCURRENT = {"two-at-once": 2, "other-tenant": 6}  # jobs of a key
KEYS = {
    "unlimited": (),
    "two-at-once": ("--concurrent-jobs", "2"),
    "other-tenant": ("--tenant", "other", "--concurrent-jobs", "6"),
    "thrifty": ("--megapixel-steps-per-minute", "30"),
}


@dataclass(frozen=True)
class Report:
    """What happened, and what does not add up."""

    counts: dict[str, object]
    complaints: list[str]

    def table(self) -> str:
        """For people."""
        width = max(map(len, self.counts))
        lines = [f"{name:<{width}}  {_text(value)}" for name, value in self.counts.items()]
        verdict = f"{len(self.complaints)} things do not add up" if self.complaints else "everything adds up"
        return "\n".join([*lines, verdict, *(f"- {complaint}" for complaint in self.complaints)])


async def chaos(world: World, seconds: float, seed: int) -> Report:
    """Load and break `world` for so long, bring it up again, and audit what is left."""
    draw = random.Random(seed)
    for statement in WATCH:
        await asyncio.to_thread(world.rows, statement)
    keys = [
        Key(name, world.edges[0].key("--name", name, *quotas), CONCURRENT.get(name, 0)) for name, quotas in KEYS.items()
    ]
    admin = world.edges[0].key("--name", "auditor", "--scopes", "read,admin")
    seen, urls = Seen(), [edge.url for edge in world.edges]
    breaking = Breaking(world, random.Random(draw.getrandbits(64)), long=seconds >= LONG)
    with web(Receiver()) as receiver:
        began = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for _ in range(CLIENTS):
                client = Client(urls, keys, receiver.url, seen, random.Random(draw.getrandbits(64)))
                group.create_task(client.run(seconds))
            group.create_task(breaking.run(seconds))
        await asyncio.to_thread(world.bring_up)
        stopped = time.monotonic()
        # What is not over in time is found by the audit.
        with contextlib.suppress(AssertionError):
            await asyncio.to_thread(wait_until, lambda: not busy(world), QUIET)
        quiet = time.monotonic()
        await asyncio.sleep(FLUSHED)
        books = Books(world, keys, admin, seen, list(receiver.came))
        await asyncio.to_thread(books.audit)
    counts: dict[str, object] = {
        "seconds of load and faults": round(stopped - began),
        "seconds until quiet": round(quiet - stopped),
        "faults": dict(sorted(breaking.counts.items())),
        "faults in all": sum(breaking.counts.values()),
        "processes started again": world.starts,
        "what clients did": dict(seen.acts.most_common()),
        "what they were answered": dict(seen.answers.most_common()),
    }
    return Report(counts | books.counts, books.complaints)


class Receiver:
    """Of webhooks. It refuses every eighth when it sees it first."""

    def __init__(self) -> None:
        self._tries: Counter[str] = Counter()
        self._lock = threading.Lock()

    def __call__(self, came: Came) -> Answer:
        id = came.headers["webhook-id"]
        with self._lock:
            self._tries[id] += 1
            first = self._tries[id] == 1
        return Answer(500 if first and zlib.crc32(id.encode()) % 8 == 0 else 204)


def _text(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {count}" for name, count in value.items()) or "none"
    return str(value)
