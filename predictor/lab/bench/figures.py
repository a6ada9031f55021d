"""The figures that a run is made for: one side's seconds over another's, of medians."""

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, get_args

from predictor.lab.bench.results import Raw, Result, SideName

CONCURRENT: Final = 16  # requests at once, of the throughput figures
STARTS: Final = 3  # of each side at least: fewer have no median worth telling
NAMES: Final = (
    "cold_page_cache_warm",
    "cpu_cold",
    "cold_page_cache_dropped",
    "warm_single_image",
    "throughput_16",
    "warm_against_compile",
    "eager_cold_first_image",
    "eager_warm_single_image",
    "eager_throughput_16",
)


@dataclass(frozen=True)
class Figure:
    """A named ratio and the two medians that it is made of, in seconds (of throughput: seconds per image)."""

    name: str
    meaning: str
    other: float
    ours: float
    throughput: bool = False

    @property
    def ratio(self) -> float:
        """How many times better ours is; above 1 is better."""
        return self.other / self.ours


def figures(result: Result) -> list[Figure]:
    """Every figure whose two sides were both measured, in the order of `NAMES`."""
    raw = result.raw
    on_cpu = "gpu" not in result.machine
    plain, lean, eager = _cold(raw, "plain"), _cold(raw, "lean"), _cold(raw, "eager")
    single = {side: singles(raw, side) for side in ("plain", "compile", "eager", "lean")}
    warm = "cpu_cold" if on_cpu else "cold_page_cache_warm"
    found = [
        (warm, "cold start to the first image, page cache warm: plain, lean", plain, lean, False),
        (
            "cold_page_cache_dropped",
            "cold start to the first image, page cache dropped: plain, lean",
            _cold(raw, "plain", "dropped"),
            _cold(raw, "lean", "dropped"),
            False,
        ),
        ("warm_single_image", "one warm image: plain, lean", single["plain"], single["lean"], False),
        (
            "throughput_16",
            "throughput: plain one at a time, lean with 16 requests at once",
            single["plain"],
            _paces(raw, "lean"),
            True,
        ),
        ("warm_against_compile", "one warm image: torch.compile, lean", single["compile"], single["lean"], False),
        ("eager_cold_first_image", "cold start to the first image, page cache warm: plain, eager", plain, eager, False),
        ("eager_warm_single_image", "one warm image: plain, eager", single["plain"], single["eager"], False),
        (
            "eager_throughput_16",
            "throughput with 16 requests at once: plain, eager",
            _paces(raw, "plain"),
            _paces(raw, "eager"),
            True,
        ),
    ]
    return [
        Figure(name, meaning, statistics.median(other), statistics.median(ours), throughput)
        for name, meaning, other, ours, throughput in found
        if other and ours
    ]


def ratios(result: Result) -> dict[str, float]:
    """What `Result.ratios` holds: a facet that was not measured on both sides has no ratio."""
    return {figure.name: round(figure.ratio, 3) for figure in figures(result)}


def singles(raw: Raw, side: str) -> list[float]:
    """Latencies of one warm picture, in seconds."""
    return [s.seconds for s in raw.latency if s.side == side and s.facet == "single"]


def burst_rates(raw: Raw, side: SideName, count: int | None = None) -> list[float]:
    """Pictures per second of each burst (of `count` requests); a burst that lost a request does not count as one."""
    runs = [r for r in raw.load if r.side == side and r.requested_rate is None]
    if count is not None:
        runs = [run for run in runs if len(run.arrivals) == count]
    return [run.achieved_rate for run in runs if len(run.latencies) == len(run.arrivals)]


def batch_medians(raw: Raw) -> list[tuple[int, SideName, float]]:
    """(images in one request, side, median seconds), by size."""
    sizes = sorted({s.images for s in raw.latency if s.facet == "batch"})
    found = []
    for images in sizes:
        for side in get_args(SideName):
            seconds = [s.seconds for s in raw.latency if (s.facet, s.images, s.side) == ("batch", images, side)]
            if seconds:
                found.append((images, side, statistics.median(seconds)))
    return found


def quantile(values: Iterable[float], share: float) -> float:
    """The smallest value that at least `share` of `values` do not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, -int(-share * len(ordered) // 1) - 1)]


def _cold(raw: Raw, side: SideName, page_cache: str = "warm") -> Sequence[float]:
    found = [s.first_image for s in raw.cold if s.side == side and s.page_cache == page_cache]
    return found if len(found) >= STARTS else []


def _paces(raw: Raw, side: SideName) -> Sequence[float]:
    return [1 / rate for rate in burst_rates(raw, side, CONCURRENT)]
