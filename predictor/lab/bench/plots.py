"""A result as pictures: its facets side by side, and the lean engine's cold start phase by phase."""

import statistics
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

from predictor.core.timeline import phases
from predictor.lab.bench.figures import batch_medians, burst_rates, quantile, singles
from predictor.lab.bench.results import ColdStart, LoadRun, Raw, Result, SideName

_SHORT: Final[dict[SideName, str]] = {
    "plain": "plain",
    "compile": "compile",
    "eager": "sdzero eager",
    "lean": "sdzero lean",
}
# Of Okabe and Ito: they differ for every kind of colour vision.
_COLOUR: Final = {"plain": "#E69F00", "compile": "#CC79A7", "eager": "#56B4E9", "lean": "#0072B2"}
_MARKER: Final = {"plain": "s", "compile": "^", "eager": "v", "lean": "o"}
_PROCESS_COLOUR: Final = {"server": "#009E73", "engine": "#0072B2"}


def plot(result: Result, path: Path) -> bool:
    """Draw the facets that were measured side by side into a PNG file; False if there is nothing to draw."""
    raw = result.raw
    panels: list[Callable[[Any], None]] = []
    for page_cache in ("warm", "dropped"):
        starts = [sample for sample in raw.cold if sample.page_cache == page_cache]
        if starts:
            panels.append(partial(_draw_cold, starts=starts))
    if raw.latency:
        panels.append(partial(_draw_latency, raw=raw))
    if any(run.requested_rate is None for run in raw.load):
        panels.append(partial(_draw_bursts, raw=raw))
    schedules = dict.fromkeys(run.schedule for run in raw.load if run.requested_rate is not None)
    panels += [partial(_draw_load, runs=[run for run in raw.load if run.schedule == name]) for name in schedules]
    if not panels:
        return False
    columns = min(4, len(panels))
    rows = -(-len(panels) // columns)
    figure = _figure(4.6 * columns, 4.0 * rows)
    for number, draw in enumerate(panels):
        axes = figure.add_subplot(rows, columns, number + 1)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
        axes.set_axisbelow(True)
        draw(axes)
    figure.suptitle(_title(result))
    figure.savefig(path, dpi=120, metadata={"Software": ""})
    return True


def plot_waterfall(result: Result, path: Path) -> bool:
    """Draw the phases of the lean engine's median cold start into a PNG file; False if no such start has marks."""
    starts = [s for s in result.raw.cold if s.side == "lean" and s.page_cache == "warm" and s.marks]
    if not starts:
        return False
    median = quantile([s.first_image for s in starts], 0.5)
    start = next(s for s in starts if s.first_image == median)
    first = min(mark.at for mark in start.marks)
    found = phases(start.marks)
    figure = _figure(10.0, 1.4 + 0.26 * len(found))
    axes = figure.add_subplot(1, 1, 1)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25, axis="x")
    axes.set_axisbelow(True)
    for row, phase in enumerate(found):
        begin = first + phase.start
        axes.barh(row, phase.seconds, left=begin, height=0.7, color=_PROCESS_COLOUR.get(phase.process, "0.5"))
        axes.text(begin + phase.seconds, row, f" {phase.seconds:.3f} s", va="center", fontsize=8)
    axes.axvline(start.first_image, color="k", linewidth=1, linestyle="--")
    axes.set_yticks(range(len(found)), [f"{phase.process} {phase.name}" for phase in found], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.08 * max(start.first_image, *(mark.at for mark in start.marks)))
    axes.set_xlabel(
        f"seconds from the start of the process; dashed: the client has its image, {start.first_image:.2f} s"
    )
    axes.set_title(f"cold start of the lean engine, median of {len(starts)}: {_title(result)}", fontsize=10)
    figure.savefig(path, dpi=120, metadata={"Software": ""})
    return True


def _figure(width: float, height: float) -> Any:
    # Imported here: a run imports this file and need not draw.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _title(result: Result) -> str:
    work = result.raw.workload
    return f"{work.model}, {work.width}x{work.height}, {work.steps} steps, {result.machine.get('gpu') or 'CPU'}"


def _draw_cold(axes: Any, *, starts: Sequence[ColdStart]) -> None:
    sides = [side for side in _SHORT if any(s.side == side for s in starts)]
    for place, side in enumerate(sides):
        seconds = [s.first_image for s in starts if s.side == side]
        median = statistics.median(seconds)
        axes.bar(place, median, width=0.6, color=_COLOUR[side])
        axes.plot([place] * len(seconds), seconds, "k.", alpha=0.6)
        paper = {"facecolor": "white", "edgecolor": "none", "pad": 1.5}
        axes.annotate(f"{median:.1f} s", (place, 0), (0, 6), textcoords="offset points", ha="center", bbox=paper)
    # Minutes of compilation would leave nothing of the others to be seen; its bar runs out of the picture.
    others = [s.first_image for s in starts if s.side != "compile"]
    if others:
        axes.set_ylim(0, 1.1 * max(others))
    axes.set_xticks(range(len(sides)), [_SHORT[side] for side in sides])
    axes.set_ylabel("seconds from process start")
    axes.set_title(f"first image, page cache {starts[0].page_cache} (bar: median)", fontsize=10)


def _draw_latency(axes: Any, *, raw: Raw) -> None:
    for side in _SHORT:
        points = [(images, median) for images, other, median in batch_medians(raw) if other == side]
        if points:
            axes.plot(*zip(*points, strict=True), color=_COLOUR[side], marker=_MARKER[side], label=_SHORT[side])
        seconds = singles(raw, side)
        if seconds and not points:
            axes.plot([1] * len(seconds), seconds, _MARKER[side], color=_COLOUR[side], label=_SHORT[side])
    axes.set_ylim(bottom=0)
    axes.set_xticks(sorted({s.images for s in raw.latency}))
    axes.set_xlabel("images in one request")
    axes.set_ylabel("seconds")
    axes.set_title("warm request, median", fontsize=10)
    axes.legend(frameon=False)


def _draw_bursts(axes: Any, *, raw: Raw) -> None:
    counts = sorted({len(run.arrivals) for run in raw.load if run.requested_rate is None})
    for side in _SHORT:
        points = [(n, statistics.median(rates)) for n in counts if (rates := burst_rates(raw, side, n))]
        if points:
            axes.plot(*zip(*points, strict=True), color=_COLOUR[side], marker=_MARKER[side], label=_SHORT[side])
    axes.set_ylim(bottom=0)
    axes.set_xticks(counts)
    axes.set_xlabel("requests at once")
    axes.set_ylabel("images per second")
    axes.set_title("throughput, median", fontsize=10)
    axes.legend(frameon=False)


def _draw_load(axes: Any, *, runs: Sequence[LoadRun]) -> None:
    for run in runs:
        ordered = sorted(run.latencies)
        share = [(rank + 1) / len(run.arrivals) for rank in range(len(ordered))]
        axes.step(ordered, share, where="post", color=_COLOUR[run.side], label=_SHORT[run.side])
    axes.set_ylim(0, 1.02)
    axes.set_xlim(left=0)
    axes.set_xlabel("seconds from the intended start")
    axes.set_ylabel("share of requests answered")
    axes.set_title(f"{runs[0].schedule} ({runs[0].requested_rate:.2f}/s)", fontsize=10)
    axes.legend(frameon=False, loc="lower right")
