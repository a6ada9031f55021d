"""Simulations as pictures: told apart by shape and dash as well as by colour, so that they survive a black printer."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from predictor.lab.sim.breakeven import Point, crossing
from predictor.lab.sim.plan import Objective, Trial, pareto
from predictor.lab.sim.results import lost
from predictor.lab.sim.world import Outcome, Run

# Colours of Okabe and Ito, which differ for every kind of colour vision; each with its own dash and mark.
_STYLES: Final[dict[str, tuple[str, str, str]]] = {
    "always-on": ("#000000", "-", "s"),
    "knative-plain": ("#D55E00", "--", "^"),
    "knative-plain-one": ("#E69F00", ":", "v"),
    "sdzero": ("#0072B2", "-", "o"),
    "sdzero-15s": ("#56B4E9", "-.", "D"),
    "sdzero-ended-drains": ("#CC79A7", (0, (3, 1, 1, 1)), "X"),  # type: ignore[dict-item]
    "sdzero-sleeping": ("#009E73", (0, (5, 1, 1, 1, 1, 1)), "P"),  # type: ignore[dict-item]
}
_DAY: Final = 86_400.0
_TICKS: Final = [digit * power for power in (0.1, 1.0, 10.0, 100.0) for digit in (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8)]


def compare(runs: Mapping[str, Run], title: str, path: Path) -> None:
    """Latency and GPUs held over the busiest day, of several configurations, into a PNG file."""
    figure = _figure(11.0, 4.2)
    figure.suptitle(title, fontsize=11)
    shares, held = figure.subplots(1, 2)
    for name, run in runs.items():
        colour, dash, _ = _STYLES[name]
        # Those that differ in their pods' ends alone lie upon each other: a wide line below, dashes above.
        width = 3.0 if name == "sdzero" else 1.5
        answered = np.isin(np.array(run.outcomes), (Outcome.DRAWN, Outcome.CACHED, Outcome.JOINED))
        waited = np.sort(np.array(run.latencies)[answered])
        shares.plot(waited, (np.arange(len(waited)) + 1) / len(run.outcomes), color=colour, ls=dash, lw=width)
    shares.axhline(0.95, color="0.6", lw=0.8)
    shares.set(
        xscale="log", xlabel="seconds from arrival to answer", ylabel="share of requests answered", ylim=(0, 1.01)
    )
    shares.annotate("p95", (0.01, 0.945), xycoords=("axes fraction", "data"), va="top", color="0.35", fontsize=8)
    _plain_numbers(shares.xaxis)
    day = _busiest_day(list(runs.values())[-1])  # the first may be one that never changes
    for name, run in runs.items():
        colour, dash, _ = _STYLES[name]
        hours, gpus = _hourly(run, day)
        held.plot(hours, gpus, color=colour, ls=dash, lw=1.2, label=name)
    held.set(xlabel="hour of the trace's busiest day", ylabel="GPUs held, mean of 15 minutes", ylim=(0, None))
    held.legend(frameon=False, fontsize=9)
    _save(figure, (shares, held), path)


def draw_plan(trials: Sequence[Trial], best: Trial, objective: Objective, title: str, path: Path) -> None:
    """GPU-seconds against latency of everything that was tried, and the front, into a PNG file."""
    figure = _figure(7.0, 4.6)
    axes = figure.subplots()
    for met, mark, label in ((True, "o", "keeps the objective"), (False, "x", "does not")):
        of = [t for t in trials if objective.met(t.summary) is met and not lost(t.summary)]
        colour = "#0072B2" if met else "#D55E00"
        x, y = [t.summary.gpu_seconds_per_image for t in of], [objective.latency(t.summary) for t in of]
        axes.scatter(x, y, marker=mark, s=28, color=colour, alpha=0.7, label=label)
    front = pareto(trials, objective)
    x, y = [t.summary.gpu_seconds_per_image for t in front], [objective.latency(t.summary) for t in front]
    axes.step(x, y, where="post", color="k", lw=1, label="Pareto front")
    chosen = (best.summary.gpu_seconds_per_image, objective.latency(best.summary))
    axes.plot(*chosen, marker="*", ms=17, color="#F0E442", mec="k", ls="none", label="chosen")
    axes.axhline(objective.seconds, color="0.4", ls="--", lw=1)
    axes.set(xlabel="GPU-seconds per image", ylabel=f"{objective.percentile}, seconds", title=title, ylim=(0, None))
    axes.set(xscale="log", xticks=[tick for tick in _TICKS if axes.get_xlim()[0] < tick < axes.get_xlim()[1]])
    axes.minorticks_off()
    _plain_numbers(axes.xaxis)
    axes.title.set_fontsize(10)
    axes.legend(frameon=False, fontsize=9)
    _save(figure, (axes,), path)


def draw_break_even(found: Sequence[Point], path: Path) -> None:
    """Cost of a picture over the utilisation of a dedicated server, into a PNG file."""
    figure = _figure(7.6, 4.8)
    axes = figure.subplots()
    busy = [100 * point.dedicated_busy for point in found]
    axes.plot(busy, [p.dedicated for p in found], color="k", marker="s", ms=4, label="dedicated server, always on")
    for name in found[0].serverless:
        colour, dash, mark = _STYLES[name]
        axes.plot(busy, [p.serverless[name] for p in found], color=colour, ls=dash, marker=mark, ms=5, label=name)
        even = crossing(found, name)
        if even is not None and even < found[-1].per_hour:
            axes.axvline(float(np.interp(even, [p.per_hour for p in found], busy)), color=colour, ls=dash, lw=0.9)
    cheap = [0.08 * point.dedicated for point in found]
    axes.plot(busy, cheap, color="0.5", lw=0.9, label="92 % less than dedicated")
    axes.set(
        xscale="log",
        yscale="log",
        xlabel="share of its time in which the dedicated server computes, % (vertical: break-even)",
        ylabel="US dollars per 1000 images",
    )
    _plain_numbers(axes.xaxis)
    _plain_numbers(axes.yaxis)
    axes.legend(frameon=False, fontsize=9)
    _save(figure, (axes,), path)


def _busiest_day(run: Run) -> float:
    days = int(run.end // _DAY) + 1
    return _DAY * max(range(days), key=lambda day: _integral(run, day * _DAY, (day + 1) * _DAY))


def _hourly(run: Run, day: float) -> tuple[list[float], list[float]]:
    quarters = [day + 900.0 * quarter for quarter in range(96)]
    return [(at - day) / 3600 for at in quarters], [_integral(run, at, at + 900.0) / 900.0 for at in quarters]


def _integral(run: Run, begin: float, end: float) -> float:
    """GPU-seconds held between two moments."""
    moments = np.array([at for at, _ in run.holds] or [0.0])
    changes = np.array([change for _, change in run.holds] or [0])
    return float(np.sum(changes * (end - np.clip(moments, begin, end))))


def _plain_numbers(axis: Any) -> None:
    """A logarithmic axis with 0.1, 1, 10 instead of powers of ten."""
    axis.set_major_formatter(lambda value, _: f"{value:g}")


def _figure(width: float, height: float) -> Any:
    # Imported here: a simulation imports this file and need not draw.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _save(figure: Any, axes: Sequence[Any], path: Path) -> None:
    for each in axes:
        each.spines[["top", "right"]].set_visible(False)
        each.grid(alpha=0.25)
        each.set_axisbelow(True)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130, metadata={"Software": ""})
