"""The marks of the latest start, the server's and its present engine's, and what is told from them.

It is the start of the pod, or after a sleep that of the engine alone: there the server's part begins with the wake.
"""

import re

from predictor import clock
from predictor.core.timeline import START, Mark, Phase, phases, span
from predictor.server.metrics import Metrics

SERVER = "server"


class ColdStart:
    """Collects marks; each new one becomes an observation of `sdzero_cold_start_seconds`."""

    def __init__(self, marks: list[Mark], metrics: Metrics) -> None:
        self._server: list[Mark] = []
        self._engine: list[Mark] = []
        self._metrics = metrics
        for mark in marks:
            self._add(self._server, mark)

    @property
    def marks(self) -> list[Mark]:
        """All marks, oldest first."""
        return sorted(self._server + self._engine, key=lambda mark: mark.at)

    @property
    def phase(self) -> str:
        """What the engine finished last; `starting` before its first mark."""
        ended = [mark for mark in self._engine if mark.name != START]
        return max(ended, key=lambda mark: mark.at).name if ended else "starting"

    def once(self, name: str, since: str = START) -> None:
        """Mark the server's first `name` of a start; later ones are no part of it."""
        if all(mark.name != name for mark in self._server):
            self._add(self._server, Mark(SERVER, name, clock.now(), since))

    def engine_died(self) -> None:
        """Forget its marks: another one starts from nothing."""
        self._engine.clear()

    def woken(self) -> None:
        """Forget all marks: a start of its own begins."""
        self._engine.clear()
        self._server = [Mark(SERVER, START, clock.now())]

    def engine_marked(self, mark: Mark) -> None:
        """A mark that came from the engine."""
        self._add(self._engine, mark)

    def durations(self) -> list[tuple[str, float]]:
        """(metric name, seconds) of every phase so far, for `Server-Timing`."""
        return [(_token(phase), phase.seconds) for phase in phases(self.marks)]

    def report(self) -> dict[str, object]:
        """The body of `GET /timeline`."""
        marks = self.marks
        return {"marks": marks, "phases": phases(marks), "seconds": span(marks)}

    def _add(self, marks: list[Mark], mark: Mark) -> None:
        marks.append(mark)
        if mark.name != START:
            same = [p for p in phases(self.marks) if (p.process, p.name) == (mark.process, mark.name)]
            self._metrics.cold_start_seconds.labels(mark.process, mark.name).observe(same[-1].seconds)


def _token(phase: Phase) -> str:
    # A metric's name is a token (RFC 9110, section 5.6.2).
    return re.sub(r"[^A-Za-z0-9_.-]", "-", f"cold-{phase.process}-{phase.name}")
