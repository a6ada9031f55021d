"""When requests are intended to begin: schedules as data, drawn with a seed before the first answer comes; pure.

A closed loop slows down with the server and hides its queue (coordinated omission); here the schedule knows nothing of
answers. All times are seconds from the run's start, in order.
"""

from pathlib import Path
from typing import Annotated

import msgspec
import numpy as np
import numpy.typing as npt

from predictor.lab.bench import arrivals as simple
from predictor.lab.sim.trace import Trace, read

Positive = Annotated[float, msgspec.Meta(gt=0)]
Count = Annotated[int, msgspec.Meta(ge=1)]


class Burst(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="burst", forbid_unknown_fields=True):
    """`size` requests at one moment."""

    size: Count


class Poisson(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="poisson", forbid_unknown_fields=True):
    """Independent gaps, `rate` a second for `seconds`."""

    rate: Positive
    seconds: Positive


class Wake(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="wake", forbid_unknown_fields=True):
    """One request at 0 that wakes a pod, then Poisson arrivals while it starts."""

    rate: Positive
    seconds: Positive


class Ramp(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="ramp", forbid_unknown_fields=True):
    """Poisson arrivals whose rate climbs in equal `steps` from `first` to `last` a second, `seconds` in all."""

    first: Positive
    last: Positive
    steps: Count
    seconds: Positive


class Diurnal(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="diurnal", forbid_unknown_fields=True):
    """Days of `day` seconds, whose rate swings like a sine: `peak` is the busiest moment over the mean."""

    rate: Positive
    peak: Annotated[float, msgspec.Meta(ge=1, le=2)]
    day: Positive
    days: Positive


class Replay(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="replay", forbid_unknown_fields=True):
    """A trace (`predictor.lab.sim.trace`), each of its seconds in 1/`factor` of one, `seconds` of the run at most."""

    path: str
    factor: Positive
    skip: Annotated[float, msgspec.Meta(ge=0)] = 0.0  # seconds of the trace
    seconds: Positive


Arrivals = Burst | Poisson | Wake | Ramp | Diurnal | Replay


def schedule(arrivals: Arrivals, seed: int) -> npt.NDArray[np.float64]:
    """Intended starts, rising.

    Raises:
        ValueError: nothing would be sent.
    """
    chance = np.random.default_rng(seed)
    match arrivals:
        case Burst():
            at = np.array(simple.burst(arrivals.size))
        case Poisson():
            at = _poisson(chance, arrivals.rate, arrivals.seconds)
        case Wake():
            at = np.concatenate([[0.0], _poisson(chance, arrivals.rate, arrivals.seconds)])
        case Ramp():
            length = arrivals.seconds / arrivals.steps
            rates = np.linspace(arrivals.first, arrivals.last, arrivals.steps)
            at = np.concatenate([number * length + _poisson(chance, rate, length) for number, rate in enumerate(rates)])
        case Diurnal():
            seconds = arrivals.day * arrivals.days
            at = _poisson(chance, arrivals.rate * arrivals.peak, seconds)
            # By thinning (Lewis and Shedler, 1979); a day begins at its quietest.
            swing = 1 + (arrivals.peak - 1) * np.sin(2 * np.pi * (at / arrivals.day - 0.25))
            at = at[chance.uniform(0, arrivals.peak, len(at)) < swing]
        case Replay():
            at = window(arrivals, read(Path(arrivals.path)))[0]
    if not len(at):
        raise ValueError(f"arrivals: {arrivals}: nothing would be sent; allowed: a higher rate or a longer run")
    return at


def window(replay: Replay, trace: Trace) -> tuple[npt.NDArray[np.float64], slice]:
    """The starts of the part of a trace that is replayed, compressed, and where in the trace it stands."""
    first, last = np.searchsorted(trace.at, [replay.skip, replay.skip + replay.seconds * replay.factor])
    part = slice(int(first), int(last))
    return (trace.at[part] - replay.skip) / replay.factor, part


def _poisson(chance: np.random.Generator, rate: float, seconds: float) -> npt.NDArray[np.float64]:
    return np.sort(chance.uniform(0.0, seconds, chance.poisson(rate * seconds)))
