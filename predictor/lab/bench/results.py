"""What a benchmark run leaves behind: every sample, and the ratios that follow from them (`figures`).

docs/measurements/README.md describes the file. Nothing here names a host, a path or a user.
"""

from pathlib import Path
from typing import Literal

import msgspec

from predictor.core.timeline import Mark

SideName = Literal["plain", "compile", "eager", "lean"]


class Workload(msgspec.Struct, frozen=True, kw_only=True):
    """The request that every sample made, but for its seed and number of images."""

    model: str
    steps: int
    guidance_scale: float
    height: int  # pixels
    width: int
    sampler: str = "ddim"


class BundleFacts(msgspec.Struct, frozen=True, kw_only=True):
    """The bundle that the lean engine served."""

    name: str
    bytes: int  # of all its files
    bake_seconds: float | None  # None: its manifest does not say


class ColdStart(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One fresh process, in seconds from the moment before it was spawned."""

    side: SideName
    trial: int
    kernel_start: float  # the kernel's own stamp of the process's start; 10 ms ticks
    port_open: float
    first_image: float
    server_timing: str  # the header of the first answer; empty if there was none
    page_cache: Literal["warm", "dropped"] = "warm"
    evicted_bytes: int = 0  # left the page cache just before the start
    resident_share: float | None = None  # of the files' pages, just before the start; None with a warm cache
    marks: list[Mark] = []  # of GET /timeline, `at` as all times here; empty for a server without one


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


class Memory(msgspec.Struct, frozen=True, kw_only=True):
    """What one side's processes hold once they have done the load, in bytes."""

    side: SideName
    rss_peak: int  # sum of each process's own peak, shared pages counted in each
    pss: int  # now, shared pages counted once
    gpu: int | None
    gpu_from: Literal["processes", "freed"] | None  # listed for its processes, or given back when it was stopped


class Raw(msgspec.Struct, kw_only=True):
    """Every sample of a run."""

    workload: Workload
    bundle: BundleFacts | None = None
    cold: list[ColdStart] = []
    latency: list[Latency] = []
    load: list[LoadRun] = []
    memory: list[Memory] = []


class Result(msgspec.Struct, kw_only=True):
    """A file of docs/measurements."""

    command: str
    commit: str
    machine: dict[str, str | int]
    date: str  # ISO 8601, UTC
    ratios: dict[str, float]  # the other against ours; above 1 is better
    missing: list[str] = []  # what was asked for and could not be measured, with the reason
    raw: Raw


def read(path: Path) -> Result:
    """Raises msgspec.DecodeError, naming the key, for a file that is no result."""
    return msgspec.json.decode(path.read_bytes(), type=Result)


def write(path: Path, result: Result) -> None:
    """Replace the file at once, so that whoever is cut off leaves a whole one; one key or sample a line, for diffs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(path.name + ".part")
    fresh.write_bytes(msgspec.json.format(msgspec.json.encode(result), indent=1) + b"\n")
    fresh.replace(path)
