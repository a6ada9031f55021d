"""What may break, and when: drawn from a seed, each kind once before any comes again."""

import asyncio
import random
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass

from tests.edge.chaos.world import World

GAP = 1.5, 6.0  # seconds between the beginnings of two faults
AWAY = 0.3, 4.0  # seconds until a fault is mended
LEASE = 33.0  # seconds: longer than an edge may be silent without being taken for dead


@dataclass(frozen=True)
class Fault:
    """One way to break a part. What has ended by it and is not mended here is started again by its keeper."""

    name: str
    part: str  # is broken in one way at a time
    hit: Callable[[], object]
    mend: Callable[[], object] = lambda: None
    seconds: tuple[float, float] = AWAY


def faults_of(world: World, *, long: bool) -> list[Fault]:
    """All kinds; `long` lets an edge be silent for longer than its leases."""
    found = [
        Fault("predictor killed", "predictor", lambda: world.predictor.popen.kill()),
        Fault("engine killed", "predictor", world.predictor.kill_engine),
        Fault("predictor frozen", "predictor", *_frozen(lambda: world.predictor)),
        Fault("redis killed", "redis", world.redis.kill, world.redis.start),
        Fault("redis frozen", "redis", world.redis.hang, world.redis.wake),
        Fault("postgresql restarted", "postgresql", world.postgresql.stop, world.postgresql.start),
        Fault("postgresql killed", "postgresql", world.postgresql.kill, world.postgresql.start),
        Fault("store killed", "store", world.store.kill, world.store.start),
        Fault("store restarted", "store", world.store.stop, world.store.start),
        Fault("store frozen", "store", world.store.hang, world.store.wake),
    ]
    for letter, edge in zip("AB", world.edges, strict=True):
        found += [
            Fault(f"edge {letter} killed", letter, lambda edge=edge: edge.popen.kill()),
            Fault(f"edge {letter} told to stop", letter, lambda edge=edge: edge.popen.terminate()),
            Fault(f"edge {letter} frozen", letter, *_frozen(lambda edge=edge: edge)),
        ]
        if long:
            slow = _frozen(lambda edge=edge: edge)
            found.append(Fault(f"edge {letter} frozen past its leases", letter, *slow, seconds=(LEASE, LEASE + 5)))
    return found


class Breaking:
    """Breaks the parts of a world until it is told to stop; `counts` says what and how often."""

    def __init__(self, world: World, random: random.Random, *, long: bool) -> None:
        self.counts: dict[str, int] = {}
        self._faults = faults_of(world, long=long)
        self._random = random
        self._broken: set[str] = set()

    async def run(self, seconds: float) -> None:
        """Break and mend for so long; at the end everything is mended."""
        over = time.monotonic() + seconds
        deck: list[Fault] = []
        async with asyncio.TaskGroup() as mending:
            while time.monotonic() < over:
                if not deck:
                    deck = self._random.sample(self._faults, len(self._faults))
                fault = next((fault for fault in deck if fault.part not in self._broken), None)
                if fault is not None:
                    deck.remove(fault)
                    mending.create_task(self._break(fault, self._random.uniform(*fault.seconds)))
                await asyncio.sleep(self._random.uniform(*GAP))

    async def _break(self, fault: Fault, seconds: float) -> None:
        self._broken.add(fault.part)
        self.counts[fault.name] = self.counts.get(fault.name, 0) + 1
        try:
            await asyncio.to_thread(fault.hit)
            await asyncio.sleep(seconds)
        finally:
            await asyncio.to_thread(fault.mend)
            self._broken.discard(fault.part)


def _frozen(program: Callable[[], object]) -> tuple[Callable[[], object], Callable[[], object]]:
    return (
        lambda: program().popen.send_signal(signal.SIGSTOP),
        lambda: program().popen.send_signal(signal.SIGCONT),
    )
