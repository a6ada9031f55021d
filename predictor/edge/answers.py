"""What the predictor says of a request, as types; `predictor/server/events.py` has the other side."""

import re
from dataclasses import dataclass, field
from typing import TypeVar

import msgspec

from predictor.core.problems import PROBLEMS, Draining, NotReady, PredictorLost, Problem, ProblemRecord
from predictor.edge.sse import Event

METRIC = re.compile(r"([^\s;,]+);dur=(\d+(?:\.\d+)?)")
COLD = "cold-"  # before the names of a start's phases in `Server-Timing`

T = TypeVar("T")


@dataclass(frozen=True)
class Waking:
    """It has not taken the request yet: what its engine has done so far, else `unreachable` or `starting`."""

    phase: str


@dataclass(frozen=True)
class Accepted:
    """It has taken the request; the tokens of both prompts."""

    prompt_tokens: int
    negative_prompt_tokens: int


@dataclass(frozen=True)
class Progress:
    """`step` of `steps` is done; `previews` holds base64 of a PNG file per image where they were asked for."""

    step: int
    steps: int
    previews: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Pictures:
    """The end: PNG files and their seeds. `timing` and `cold_phases` are seconds by stage, in the predictor's order."""

    files: list[bytes]
    seeds: tuple[int, ...]
    timing: dict[str, float]
    cold_phases: dict[str, float]  # PROCESS-PHASE; empty unless `cold_start`
    gpu_seconds: float
    cold_start: bool
    revision: str
    prompt_tokens: int
    negative_prompt_tokens: int


Update = Waking | Accepted | Progress | Pictures


class NotYet(Exception):
    """It cannot take a request now, and will be able to soon; Waking is what callers see of this."""

    def __init__(self, phase: str) -> None:
        super().__init__(phase)
        self.phase = phase


class _Refused(msgspec.Struct):
    error: str
    code: str
    field: str | None = None
    retry_after: float | None = None
    phase: str = "starting"


class _Parameters(msgspec.Struct):
    cold_start: bool
    model_revision: str
    negative_prompt_tokens: int
    gpu_seconds: float
    server_timing: str


class _Done(msgspec.Struct):
    image: list[bytes]  # base64 in JSON
    seed: tuple[int, ...]
    prompt_tokens: int
    parameters: _Parameters


def update(event: Event, images: int) -> Accepted | Progress | Pictures | None:
    """What an event of a request for so many images says; None for an event of another kind.

    Raises:
        Problem: the request has ended with it.
        PredictorLost: the event cannot be read.
    """
    match event.name:
        case "accepted":
            return decoded(event.data, Accepted, "its acceptance")
        case "progress":
            return decoded(event.data, Progress, "its progress")
        case "done":
            return _pictures(decoded(event.data, _Done, "its answer"), images)
        case "error":
            raise _problem(decoded(event.data, _Refused, "its problem"))
    return None


def refusal(status: int, body: bytes) -> Exception:
    """What to raise for a response other than 200: its problem, or NotYet."""
    try:
        refused = msgspec.json.decode(body, type=_Refused)
    except msgspec.DecodeError:
        if status in (502, 503, 504):  # of something between here and there, which has nobody to pass it on to
            return NotYet("starting")
        return lost(f"the predictor's address answered {status} without one of its problems")
    if refused.code in (NotReady.code, Draining.code):
        return NotYet(refused.phase)
    return _problem(refused)


def _problem(refused: _Refused) -> Problem:
    if refused.code not in PROBLEMS:
        return lost(f"the predictor ended the request with {refused.code}: {refused.error}")
    return ProblemRecord(refused.code, refused.error, refused.field, refused.retry_after).problem()


def _pictures(done: _Done, images: int) -> Pictures:
    if not len(done.image) == len(done.seed) == images:
        raise lost(f"the predictor sent {len(done.image)} images of {len(done.seed)} seeds; asked for: {images}")
    told = done.parameters
    seconds = {name: float(milliseconds) / 1000 for name, milliseconds in METRIC.findall(told.server_timing)}
    return Pictures(
        files=done.image,
        seeds=done.seed,
        timing={name: value for name, value in seconds.items() if not name.startswith(COLD)},
        cold_phases={name.removeprefix(COLD): value for name, value in seconds.items() if name.startswith(COLD)},
        gpu_seconds=told.gpu_seconds,
        cold_start=told.cold_start,
        revision=told.model_revision,
        prompt_tokens=done.prompt_tokens,
        negative_prompt_tokens=told.negative_prompt_tokens,
    )


def decoded(data: bytes, kind: type[T], what: str) -> T:
    """JSON as `kind`; PredictorLost if it is something else."""
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.DecodeError as error:
        raise lost(f"the predictor spoke, but {what} cannot be read: {error}") from None


def lost(message: str) -> PredictorLost:
    """It has gone, or has lost its mind; the same request may succeed with the one that follows it."""
    return PredictorLost(message, retry_after=1.0)
