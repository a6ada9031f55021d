"""The report's plots, as SVG.

Kinds differ by colour (Okabe and Ito's palette) and by marker, line or hatching as well: for print, and for all eyes.
"""

import io
from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from loadtest.arrivals import Ramp
from loadtest.phases import ColdStart, timing
from loadtest.quantiles import rank
from loadtest.run import Held
from loadtest.samples import Sample
from loadtest.scenarios import Scenario
from loadtest.summary import group_of

_SOURCE: Final = {  # colour, hatching
    "client": ("#999999", ".."),
    "cluster": ("#E69F00", ""),
    "product": ("#0072B2", "\\\\"),
    "nobody": ("#FFFFFF", "////"),
}
_GROUP: Final = {  # colour, marker, line
    "cold": ("#0072B2", "o", "-"),
    "warm": ("#E69F00", "s", "--"),
    "cached": ("#009E73", "^", ":"),
    "not answered": ("#000000", "x", "-."),
}
_TARGET: Final = {"a": ("#0072B2", "-"), "b": ("#D55E00", "--")}
_STAGES: Final = ("wake", "queue", "encode", "denoise", "decode", "pack")
_MANY: Final = 3000  # points; more of them are drawn as pixels, or a page would have megabytes
_WINDOWS: Final = 12


def waterfall(starts: Sequence[ColdStart]) -> str:
    """The median cold start and the worst, part by part on one axis."""
    ordered = sorted(starts, key=lambda start: start.seconds)
    median = ordered[rank(len(ordered), 0.5) - 1]
    shown = [("median", median)] if len(ordered) == 1 else [("median", median), ("worst", ordered[-1])]
    rows = max(len(start.parts) for _, start in shown)
    figure = _figure(5.2 * len(shown) + 1, 1.3 + 0.34 * rows)
    axes = figure.subplots(1, len(shown), sharex=True, squeeze=False)[0]
    for each, (words, start) in zip(axes, shown, strict=True):
        begin = 0.0
        for place, part in enumerate(start.parts):
            colour, hatch = _SOURCE[part.source]
            each.barh(place, part.seconds, left=begin, color=colour, hatch=hatch, edgecolor="0.2", linewidth=0.6)
            end = max(begin, begin + part.seconds)
            each.text(end, place, f" {part.seconds:.3f} s", va="center", fontsize=8)
            begin += part.seconds
        each.set_yticks(range(len(start.parts)), [part.name for part in start.parts])
        each.invert_yaxis()
        each.axvline(start.seconds, color="k", linewidth=1, linestyle=":")
        each.set_xlim(0, 1.18 * ordered[-1].seconds if len(shown) > 1 else 1.18 * start.seconds)
        each.set_xlabel("seconds from the intended start")
        each.set_title(
            f"{start.target}, {words} of {len(ordered)}: {start.seconds:.2f} s (cycle {start.cycle + 1})", fontsize=10
        )
        _tidy(each, "x")
    used = dict.fromkeys(part.source for _, start in shown for part in start.parts)
    from matplotlib.patches import Patch

    figure.legend(
        handles=[Patch(facecolor=_SOURCE[s][0], hatch=_SOURCE[s][1], edgecolor="0.2", label=s) for s in used],
        loc="outside lower center",
        ncols=len(used),
        frameon=False,
        title="told by",
    )
    return _svg(figure)


def distributions(last: Sequence[Sample]) -> str:
    """The share of requests answered after so many seconds, by group and target; censored ones never come up."""
    targets = sorted({sample.target for sample in last})
    figure = _figure(10, 3.6)
    axes = figure.subplots()
    everything: list[float] = []
    for target in targets:
        ours = [sample for sample in last if sample.target == target]
        waiting = sum(sample.outcome == "timeout" for sample in ours)
        for group, (colour, marker, line) in _GROUP.items():
            seconds = np.sort([s.latency for s in ours if _kind(s) == group])
            if group == "not answered" or not len(seconds):
                continue
            everything += [seconds[0], seconds[-1]]
            share = np.arange(1, len(seconds) + 1) / (len(seconds) + (waiting if group != "cached" else 0))
            label = f"{group} ({len(seconds)})" if len(targets) == 1 else f"{target}: {group} ({len(seconds)})"
            style: dict[str, Any] = {"color": colour, "linestyle": line}
            if len(targets) > 1:
                style = {"color": _TARGET[target][0], "linestyle": _TARGET[target][1]}
            axes.step(
                seconds, share, where="post", label=label, marker=marker, markersize=4,
                markevery=max(1, len(seconds) // 12), **style,
            )  # fmt: skip
    if everything and max(everything) > 20 * max(1e-4, min(everything)):
        axes.set_xscale("log")
    axes.set_ylim(0, 1.03)
    axes.set_xlabel("seconds from the intended start")
    axes.set_ylabel("share of requests answered")
    if everything:
        axes.legend(frameon=False, loc="lower right")
    _tidy(axes)
    return _svg(figure)


def over_time(last: Sequence[Sample], held: Sequence[Held] | None) -> str:
    """Each request's latency at its intended start; below, requests in flight and pods that were there."""
    figure = _figure(10, 5.0 if held is not None else 4.4)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1))
    unit, words = (60.0, "minutes") if max(s.finished for s in last) > 600 else (1.0, "seconds")
    for group, (colour, marker, _) in _GROUP.items():
        ours = [sample for sample in last if _kind(sample) == group]
        if ours:
            upper.plot(
                [s.intended / unit for s in ours], [s.latency for s in ours], linestyle="", marker=marker,
                markersize=4, color=colour, alpha=0.7, label=f"{group} ({len(ours)})", rasterized=len(ours) > _MANY,
            )  # fmt: skip
    upper.set_ylabel("seconds")
    upper.set_ylim(0, 1.06 * max(sample.latency for sample in last))
    upper.legend(frameon=False, fontsize=8, ncols=4, loc="lower left", bbox_to_anchor=(0, 1))
    times, counts = _steps([(s.intended, s.finished) for s in last])
    lower.step(times / unit, counts, where="post", color="0.4", linestyle="-", label="requests in flight")
    if held is not None:
        end = max(sample.finished for sample in last)
        times, counts = _steps([(pod.since, end if pod.until is None else pod.until) for pod in held])
        lower.step(times / unit, counts, where="post", color="#0072B2", linestyle="--", linewidth=2, label="pods")
    lower.set_ylim(bottom=0)
    lower.set_ylabel("how many")
    lower.set_xlabel(f"{words} from the run's start")
    lower.legend(frameon=False, fontsize=8, ncols=2, loc="lower left", bbox_to_anchor=(0, 1))
    for axes in (upper, lower):
        _tidy(axes)
    return _svg(figure)


def throughput(last: Sequence[Sample], scenario: Scenario) -> str:
    """Windows of the run: pictures a second that were asked for, and those that came, against latency."""
    windows = scenario.arrivals.steps if isinstance(scenario.arrivals, Ramp) else _WINDOWS
    begin, end = min(s.intended for s in last), max(s.intended for s in last)
    length = max(1e-9, (end - begin) / windows)
    asked, came, p50, p95 = [], [], [], []
    for number in range(windows):
        inside = [s for s in last if number <= (s.intended - begin) / length < number + 1]
        seconds = sorted(s.latency for s in inside if s.outcome == "ok")
        if not seconds:
            continue
        asked.append(sum(s.images for s in inside) / length)
        low, high = begin + number * length, begin + (number + 1) * length
        came.append(sum(s.images for s in last if s.outcome == "ok" and low <= s.finished < high) / length)
        p50.append(seconds[rank(len(seconds), 0.5) - 1])
        p95.append(seconds[rank(len(seconds), 0.95) - 1])
    figure = _figure(10, 3.6)
    left, right = figure.subplots(1, 2)
    left.plot(asked, p50, "o", color="#0072B2", label="p50")
    left.plot(asked, p95, "s", color="#E69F00", markerfacecolor="none", label="p95")
    left.set_ylabel("seconds")
    left.set_ylim(bottom=0)
    right.plot(asked, came, "D", color="#009E73", label="pictures that came")
    top = max([*asked, *came, 1e-9])
    right.plot([0, top], [0, top], "k:", linewidth=1, label="all that were asked for")
    right.set_ylabel("pictures a second")
    for axes in (left, right):
        axes.set_xlabel("pictures a second asked for")
        axes.set_xlim(left=0)
        axes.legend(frameon=False)
        _tidy(axes)
    return _svg(figure)


def stages(last: Sequence[Sample]) -> str | None:
    """What a request waited for and what was computed, as the product tells; None if it does not."""
    told = [timing(sample.server_timing) for sample in last if sample.outcome == "ok" and sample.server_timing]
    names = [name for name in _STAGES if any(stage.get(name, 0.0) > 0 for stage in told)]
    if not names:
        return None
    figure = _figure(10, 1.2 + 0.42 * len(names))
    axes = figure.subplots()
    axes.boxplot(
        [[1000 * stage[name] for stage in told if name in stage] for name in names],
        orientation="horizontal", whis=(5, 95), showfliers=False, tick_labels=names,
        medianprops={"color": "k", "linewidth": 2},
    )  # fmt: skip
    axes.invert_yaxis()
    axes.set_xscale("symlog", linthresh=1.0)
    axes.set_xlim(left=0)
    axes.set_xlabel("milliseconds: median, quartiles, 5 % and 95 %")
    _tidy(axes, "x")
    return _svg(figure)


def _kind(sample: Sample) -> str:
    return group_of(sample) if sample.outcome == "ok" else "not answered"


def _steps(spans: Sequence[tuple[float, float]]) -> tuple[Any, Any]:
    """How many spans are open, at each moment when that changes."""
    changes = sorted([(begin, 1) for begin, _ in spans] + [(end, -1) for _, end in spans])
    return np.array([at for at, _ in changes]), np.cumsum([by for _, by in changes])


def _figure(width: float, height: float) -> Any:
    # Imported here: a run imports this file and need not draw.
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained", dpi=150)
    FigureCanvasSVG(figure)
    return figure


def _tidy(axes: Any, grid: str = "both") -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25, axis=grid)
    axes.set_axisbelow(True)


def _svg(figure: Any) -> str:
    file = io.StringIO()
    figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    return file.getvalue()
