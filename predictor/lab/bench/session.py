"""A run in progress: whose turn it is, which servers are up, what failed, and until when anything new is begun."""

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import msgspec

from predictor.clock import now
from predictor.lab.bench import processes
from predictor.lab.bench.results import ColdStart, Raw, SideName
from predictor.lab.bench.running import Running, first_image, request, started
from predictor.lab.bench.sides import Side

Say = Callable[[str], None]


class Unmeasured(Exception):
    """The rest of a facet is left out; the message says from where on and why."""


class Session:
    """Starts and stops the sides, and keeps what they gave; a side that fails is left out from then on.

    Args:
        sides: who takes part.
        model: folder in diffusers format.
        device: cpu or cuda.
        raw: where the samples go.
        say: one line of progress.
        save: called after every sample, so that a run which is cut off keeps all before.
        deadline: in seconds since boot; no sample begins after it.
    """

    def __init__(
        self,
        sides: Sequence[Side],
        model: Path,
        device: str,
        raw: Raw,
        say: Say,
        save: Callable[[], None],
        deadline: float,
    ) -> None:
        self.sides, self.device, self.raw, self.say = tuple(sides), device, raw, say
        self.failures: dict[SideName, str] = {}
        self.mapped: set[Path] = set()  # files that the sides' processes had mapped after a cold start
        self._model, self._save, self._deadline = model, save, deadline
        self._servers: dict[SideName, tuple[Running, ExitStack]] = {}

    def turn(self, sides: Sequence[Side], number: int, what: str) -> Iterator[Side]:
        """The sides that still stand, in the order of round `number`; raises Unmeasured when time is up."""
        # Whoever goes second finds a warmer chip and a cleaner cache, so they swap.
        for side in sides if number % 2 == 0 else reversed(sides):
            if side.name not in self.failures:
                if now() > self._deadline:
                    raise Unmeasured(f"{what} {side.name} and what follows: the time budget was spent")
                yield side

    @contextmanager
    def sample(self, side: Side, what: str) -> Iterator[None]:
        """Measure something of `side`; a RuntimeError ends this side's part in the run, not the run."""
        try:
            yield
        except RuntimeError as error:
            self.failures[side.name] = f"{what} {side.name}: {str(error).partition(chr(10))[0]}"
            self.say(f"{side.name} is left out from here on: {error}")
            self.stop(side)
        self._save()

    def cold_start(self, side: Side, trial: int) -> ColdStart:
        """Start a fresh process of `side`, take its first picture, and stop it."""
        if side.compiled:
            # What an earlier process compiled would make this start a warm one.
            shutil.rmtree(side.compiled, ignore_errors=True)
        with started(side, self._model, self.device) as running:
            sample = first_image(running, self.raw.workload, trial, seed=trial)
            self.mapped |= processes.mapped_files(processes.members(running.process.pid))
        return sample

    def servers(self, sides: Sequence[Side], facet: str) -> dict[SideName, Running]:
        """Servers of these sides, warm; those that are not up yet are started and make three pictures."""
        for side in self.turn(sides, 0, facet):
            if side.name not in self._servers:
                with self.sample(side, f"{facet}: warm-up"):
                    self._servers[side.name] = self._warmed(side)
                    self.say(f"{side.name}: warm")
        return {name: running for name, (running, _) in self._servers.items()}

    def stop(self, *sides: Side) -> None:
        """Stop the servers of these sides that are up."""
        for side in sides:
            if side.name in self._servers:
                _, stack = self._servers.pop(side.name)
                stack.close()

    def _warmed(self, side: Side) -> tuple[Running, ExitStack]:
        with ExitStack() as stack:
            running = stack.enter_context(started(side, self._model, self.device))
            first_image(running, self.raw.workload, 0, seed=0)
            for seed in range(2):
                request(running, self.raw.workload, seed, 1)
            return running, stack.pop_all()


def dropped(sample: ColdStart, evicted: int, resident_share: float) -> ColdStart:
    """The same start, taken with its files dropped from the page cache."""
    return msgspec.structs.replace(
        sample, page_cache="dropped", evicted_bytes=evicted, resident_share=round(resident_share, 4)
    )
