"""A replay beside its simulation: latencies, and pods over time, as a picture."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from loadtest.replays import Curve, Played

_REAL: Final[dict[str, Any]] = {"color": "#000000", "linestyle": "-", "linewidth": 1.5}
_SIMULATED: Final[dict[str, Any]] = {"color": "#D55E00", "linestyle": "--", "linewidth": 1.5}
_SPREAD: Final[dict[str, Any]] = {"color": "#D55E00", "alpha": 0.2, "linewidth": 0}
_SECONDS: Final = (0.1, 0.2, 0.3, 0.5, 1, 2, 3, 5, 10, 20, 30, 50, 100)
_WORDS: Final = {"pods": "pods, those that drain included", "replicas": "replicas: pods not told to go"}


def draw(
    real: Played,
    worlds: Sequence[Played],
    curves: Mapping[str, tuple[Curve, Sequence[Curve]]],
    title: str,
    path: Path,
) -> None:
    """Into a PNG file; bands hold 95 % of the worlds."""
    # Imported here: a comparison need not draw.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11.5, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=11)
    axes: dict[str, Any] = figure.subplot_mosaic([["shares", "replicas"], ["shares", "pods"]], width_ratios=(2, 3))
    shares = axes["shares"]
    count = len(real.latencies)
    heights = (np.arange(count) + 1) / count
    waited = np.array([world.latencies for world in worlds])
    low, middle, high = np.percentile(waited, (2.5, 50, 97.5), axis=0)
    shares.fill_betweenx(heights, low, high, step="pre", **_SPREAD)
    shares.step(middle, heights, where="pre", label="simulated", **_SIMULATED)
    shares.step(real.latencies, heights, where="pre", label="measured", **_REAL)
    for share in (0.5, 0.95):
        shares.axhline(share, color="0.6", linewidth=0.8)
    shares.set(xscale="log", xlabel="seconds from arrival to answer", ylabel="share of requests", ylim=(0, 1.01))
    shares.set_xticks([at for at in _SECONDS if shares.get_xlim()[0] <= at <= shares.get_xlim()[1]], minor=False)
    shares.xaxis.set_major_formatter("{x:g}")
    shares.xaxis.set_minor_formatter("")
    shares.legend(frameon=False, fontsize=9, loc="lower right")
    for name, (truth, found) in curves.items():
        seconds = np.arange(len(truth)) + 0.5
        low, high = np.percentile(found, (2.5, 97.5), axis=0)
        axes[name].fill_between(seconds, low, high, **_SPREAD)
        axes[name].plot(seconds, np.mean(found, axis=0), label="simulated, mean", **_SIMULATED)
        axes[name].plot(seconds, truth, label="measured", **_REAL)
        axes[name].set_title(_WORDS[name], fontsize=9, loc="left")
        axes[name].set_ylim(0, None)
    axes["pods"].set_xlabel("seconds from the replay's start")
    for each in axes.values():
        each.spines[["top", "right"]].set_visible(False)
        each.grid(alpha=0.25)
        each.set_axisbelow(True)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, metadata={"Software": ""})
