"""What the predictor in a pod tells of its own start: its log, and its timeline.

Both are read through the API server, which asks the kubelet for the one and the pod's own port for the other. Neither
passes Knative's activator or queue-proxy, so nothing is woken, and nothing counts as traffic that would keep a pod.
A network policy may close the port to the API server; the log is then all there is.

The timeline counts seconds since the machine's boot (`predictor.clock`). The line that says `ready` is written when the
server marks `engine_ready`, and has the time of day: with it the one clock becomes the other.
"""

from datetime import datetime

import msgspec

from predictor.core.timeline import START, Mark

SERVER = "server"  # the process in the pod that writes the log
READY = "engine_ready"  # its mark that the log tells as well
FIRST_REQUEST, FIRST_ANSWER = "first_request", "first_answer"


class Said(msgspec.Struct, frozen=True):
    """A line of the log that tells of the start, at `at` seconds since the epoch: READY or FIRST_ANSWER.

    `seconds` is how long the request took that was answered; `text` is its dialect, or the revision.
    """

    name: str
    at: float
    seconds: float = 0.0
    text: str = ""


class _Line(msgspec.Struct):
    event: str
    logger: str
    timestamp: datetime
    seconds: float = 0.0
    revision: str = ""
    dialect: str = ""
    outcome: str = ""


class _Timeline(msgspec.Struct):
    marks: list[Mark]


def of_log(line: str) -> Said | None:
    """What a line of a predictor's log says of its start; None of any other line, whoever has written it."""
    try:
        said = msgspec.json.decode(line, type=_Line)
    except msgspec.DecodeError:
        return None
    at = said.timestamp.timestamp()
    match said.logger, said.event:
        case "sdzero.server", "ready":
            return Said(READY, at, text=f"revision {said.revision}")
        case "sdzero.http", "request" if said.outcome == "ok":
            return Said(FIRST_ANSWER, at, said.seconds, f"{said.dialect}, {said.seconds:.3f} s after its request")
    return None


def of_timeline(body: bytes, ready: float) -> list[Mark]:
    """The marks of a predictor's `GET /timeline`, in seconds since the epoch.

    Args:
        body: the answer.
        ready: when it was ready, since the epoch.

    Raises:
        ValueError: it is no timeline, or that of a predictor which is not ready.
    """
    try:
        marks = msgspec.json.decode(body, type=_Timeline).marks
    except msgspec.DecodeError as error:
        raise ValueError(f"no timeline: {error}") from None
    known = [mark.at for mark in marks if (mark.process, mark.name) == (SERVER, READY)]
    if not known:
        raise ValueError(f"the timeline has no mark {SERVER} {READY}")
    offset = ready - known[0]
    return sorted(
        (msgspec.structs.replace(mark, at=mark.at + offset) for mark in marks if mark.name != FIRST_REQUEST),
        key=lambda mark: mark.at,
    )


def of_answer(said: Said) -> list[Mark]:
    """The first request and its answer as marks of the process."""
    began = Mark(SERVER, FIRST_REQUEST, said.at - said.seconds, READY)
    return [began, Mark(SERVER, FIRST_ANSWER, said.at, FIRST_REQUEST)]


def of_ready(said: Said) -> list[Mark]:
    """All that is known of a process whose timeline cannot be had."""
    return [Mark(SERVER, START, said.at), Mark(SERVER, READY, said.at)]
