"""Cold-start marks → phases → text: where each second between a process's start and its first image goes.

A mark is a moment with a name. It ends the phase of that name; `since` names the mark at which the phase began, so
phases of one process may overlap (weights are read while modules are imported) and still be told apart. Times are
seconds on the pod's one clock (`predictor.clock`).
"""

import math
import re
from collections.abc import Iterable, Sequence

import msgspec

START = "process_start"
TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")


class Mark(msgspec.Struct, frozen=True):
    """The end of phase `name` of `process`, at `at` seconds since boot, which began at that process's mark `since`."""

    process: str
    name: str
    at: float
    since: str = START


class Phase(msgspec.Struct, frozen=True):
    """An interval of one process; `start` and `seconds` count from the timeline's first mark."""

    process: str
    name: str
    start: float
    seconds: float


def phases(marks: Iterable[Mark]) -> list[Phase]:
    """The phases that `marks` end, ordered by their end.

    A mark whose `since` has not been seen (a process that was killed early) begins at its process's first mark; the
    start marks themselves are no phases.
    """
    marks = sorted(marks, key=lambda mark: mark.at)
    zero = marks[0].at if marks else 0.0
    first: dict[str, float] = {}
    moments: dict[tuple[str, str], float] = {}
    found = []
    for mark in marks:
        began = moments.get((mark.process, mark.since), first.setdefault(mark.process, mark.at))
        moments[mark.process, mark.name] = mark.at
        if mark.name != START:
            found.append(Phase(mark.process, mark.name, began - zero, mark.at - began))
    return found


def span(marks: Sequence[Mark]) -> float:
    """Seconds from the first mark to the last."""
    return max(m.at for m in marks) - min(m.at for m in marks) if marks else 0.0


def server_timing(durations: Iterable[tuple[str, float]]) -> str:
    """The `Server-Timing` header value of (metric name, seconds) pairs (W3C Server Timing, section 3; in ms).

    Raises:
        ValueError: a name that is no token (RFC 9110, section 5.6.2), or a duration that is no number from 0.
    """
    metrics = []
    for name, seconds in durations:
        if not TOKEN.fullmatch(name) or not 0 <= seconds < math.inf:
            raise ValueError(f"Server-Timing: got {name!r}, {seconds} s; allowed: an HTTP token, and seconds from 0")
        metrics.append(f"{name};dur={seconds * 1000:.1f}")
    return ", ".join(metrics)


def chart(found: Sequence[Phase], width: int = 60) -> str:
    """The phases as bars of text, one line each, on one axis of `width` characters."""
    if not found:
        return "no marks yet\n"
    end = max(phase.start + phase.seconds for phase in found)
    label = max(len(f"{phase.process} {phase.name}") for phase in found)
    whole = end or 1.0  # every mark may be of one moment
    last = f"{end:.2f} s"
    lines = [f"{'':{label}}  {'0 s':{width - len(last)}}{last}"]
    for phase in found:
        begin = min(round(phase.start / whole * width), width - 1)
        length = min(max(1, round(phase.seconds / whole * width)), width - begin)
        bar = " " * begin + "█" * length
        name = f"{phase.process} {phase.name}"
        lines.append(f"{name:{label}}  {bar:{width}}  {phase.seconds:7.3f} s")
    return "\n".join(lines) + "\n"
