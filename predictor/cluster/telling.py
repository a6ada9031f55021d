"""How `sdzero watch` tells what it sees: to people, or to programs as JSON lines."""

import json
import sys
from datetime import UTC, datetime
from typing import Protocol, TextIO

import msgspec

from predictor.cluster.marks import TROUBLE, Mark
from predictor.cluster.phases import Life, marks_of, phases
from predictor.core.timeline import chart, span


class Teller(Protocol):
    """Is told of marks as they come, of each start when it is over, and of what cannot be seen."""

    def mark(self, mark: Mark, zero: float) -> None:
        """A mark, of a start that was decided at `zero`, in seconds since the epoch."""

    def start(self, life: Life) -> None:
        """A pod's start is over."""

    def note(self, text: str) -> None:
        """Something that is no mark."""


class ForPeople:
    """Lines with two clocks and, after a start, its bars."""

    def __init__(self, out: TextIO | None = None) -> None:
        self._out = out or sys.stdout
        self._headed = False

    def mark(self, mark: Mark, zero: float) -> None:
        """One line: seconds since the decision when it came to us, the time of day that was reported, and words."""
        if not self._headed:
            self._headed = True
            self._print(f"{'received':>9}   {'reported':15}  {'pod':5}  mark")
        whose = f" {mark.container}" if mark.container else ""
        text = f": {' '.join(mark.text.split())}" if mark.text else ""
        sign = "! " if mark.name in TROUBLE else ""
        self._print(
            f"{mark.received - zero:7.3f} s   {_of_day(mark):15}  {mark.pod[-5:]:5}  {sign}{mark.name}{whose}{text}"
        )

    def start(self, life: Life) -> None:
        """The phases as bars, on the best guesses of their times."""
        self._print("")
        self._print(f"{life.name}: {span(marks_of(life)):.3f} s")
        self._print(chart(phases(life)))

    def note(self, text: str) -> None:
        """A line beside the others."""
        print(f"sdzero watch: {text}", file=sys.stderr, flush=True)

    def _print(self, text: str) -> None:
        print(text, file=self._out, flush=True)


class ForPrograms:
    """JSON lines with `type` mark, start or note; times are seconds since the epoch."""

    def __init__(self, out: TextIO | None = None) -> None:
        self._out = out or sys.stdout

    def mark(self, mark: Mark, zero: float) -> None:
        """The mark, `at` as the best guess of its time, and `seconds` of that since the decision."""
        told = msgspec.to_builtins(mark)
        self._print({"type": "mark", **told, "at": mark.at, "seconds": round(mark.at - zero, 6)})

    def start(self, life: Life) -> None:
        """Every phase with its beginning and length in seconds since `began`."""
        marks = marks_of(life)
        self._print(
            {
                "type": "start",
                "pod": life.name,
                "began": min((mark.at for mark in marks), default=0.0),
                "decided": life.zero is not None,
                "seconds": span(marks),
                "phases": msgspec.to_builtins(phases(life)),
            }
        )

    def note(self, text: str) -> None:
        """Something that is no mark."""
        self._print({"type": "note", "text": text})

    def _print(self, told: dict[str, object]) -> None:
        print(json.dumps(told, ensure_ascii=False), file=self._out, flush=True)


def _of_day(mark: Mark) -> str:
    if mark.reported is None:
        return ""
    moment = datetime.fromtimestamp(mark.reported, UTC)
    return f"{moment:%H:%M:%S}" if mark.resolution else f"{moment:%H:%M:%S.%f}"[:-3]
