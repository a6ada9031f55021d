"""What a benchmark run leaves behind: every sample, and the ratios that follow from them.

docs/measurements/README.md describes the file. Nothing here names a host, a path or a user.
"""

import statistics
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Literal

import msgspec

SideName = Literal["ours", "plain"]
CONCURRENT = 16


class Workload(msgspec.Struct, frozen=True, kw_only=True):
    """The request that every sample made, but for its seed and number of images."""

    model: str
    steps: int
    guidance_scale: float
    height: int  # pixels
    width: int
    sampler: str = "ddim"


class ColdStart(msgspec.Struct, frozen=True, kw_only=True):
    """One fresh process, in seconds from the moment before it was spawned."""

    side: SideName
    trial: int
    kernel_start: float  # the kernel's own stamp of the process's start; 10 ms ticks
    port_open: float
    first_image: float
    server_timing: str  # the header of the first answer; empty if there was none


class Latency(msgspec.Struct, frozen=True, kw_only=True):
    """One request to an idle, warm server."""

    side: SideName
    facet: Literal["single", "batch"]
    images: int
    seconds: float


class Arrival(msgspec.Struct, frozen=True, array_like=True):
    """One request under load, in seconds from the run's start; latency counts from `intended`, not from `sent`."""

    intended: float
    sent: float
    finished: float
    status: int


class LoadRun(msgspec.Struct, frozen=True, kw_only=True):
    """One schedule driven against one side."""

    side: SideName
    schedule: str
    requested_rate: float | None  # requests per second; None for a burst
    arrivals: list[Arrival]

    @property
    def achieved_rate(self) -> float:
        """Pictures per second, from the run's start to the last answer."""
        return sum(a.status == 200 for a in self.arrivals) / max(a.finished for a in self.arrivals)

    @property
    def latencies(self) -> list[float]:
        """Seconds from the intended start to the answer, of the requests that got their picture."""
        return [a.finished - a.intended for a in self.arrivals if a.status == 200]


class Raw(msgspec.Struct, kw_only=True):
    """Every sample of a run."""

    workload: Workload
    cold: list[ColdStart] = []
    latency: list[Latency] = []
    load: list[LoadRun] = []


class Result(msgspec.Struct, kw_only=True):
    """A file of docs/measurements."""

    command: str
    commit: str
    machine: dict[str, str | int]
    date: str  # ISO 8601, UTC
    ratios: dict[str, float]  # ours against the other; above 1 is better
    raw: Raw


def ratios(raw: Raw) -> dict[str, float]:
    """How much better ours is, of medians; a facet that was not measured on both sides has no ratio."""
    found = {
        "eager_cold_first_image": _ratio(lambda side: [s.first_image for s in raw.cold if s.side == side]),
        "eager_warm_single_image": _ratio(lambda side: singles(raw, side)),
        "eager_throughput_16": _ratio(lambda side: [1 / rate for rate in burst_rates(raw, side)]),
    }
    return {name: round(value, 3) for name, value in found.items() if value is not None}


def singles(raw: Raw, side: SideName) -> list[float]:
    """Latencies of one warm picture, in seconds."""
    return [s.seconds for s in raw.latency if s.side == side and s.facet == "single"]


def burst_rates(raw: Raw, side: SideName) -> list[float]:
    """Pictures per second of each burst of 16; a burst that lost a request does not count as one."""
    runs = [r for r in raw.load if r.side == side and r.requested_rate is None and len(r.arrivals) == CONCURRENT]
    return [run.achieved_rate for run in runs if len(run.latencies) == CONCURRENT]


def quantile(values: Iterable[float], share: float) -> float:
    """The smallest value that at least `share` of `values` do not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, -int(-share * len(ordered) // 1) - 1)]


def read(path: Path) -> Result:
    """Raises msgspec.DecodeError, naming the key, for a file that is no result."""
    return msgspec.json.decode(path.read_bytes(), type=Result)


def write(path: Path, result: Result) -> None:
    """Write the file in a form that reads well in a diff: one key or sample a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(result), indent=1) + b"\n")


def _ratio(values: Callable[[SideName], Sequence[float]]) -> float | None:
    ours, plain = values("ours"), values("plain")
    return statistics.median(plain) / statistics.median(ours) if ours and plain else None
