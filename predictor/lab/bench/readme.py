"""The README's table of figures, generated: one row per figure, model and device, between two marks."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from predictor.lab.bench.figures import NAMES, Figure, figures
from predictor.lab.bench.results import Result
from predictor.lab.bench.tables import LABEL, size

BEGIN: Final = "<!-- bench: begin -->"
END: Final = "<!-- bench: end -->"


def table(results: Mapping[str, Result], folder: str) -> str:
    """Every figure as Markdown, of each model and device the newest; `folder` is where the page finds the files."""
    rows: dict[tuple[int, str, str], str] = {}
    for name, result in sorted(results.items(), key=lambda pair: pair[1].date):
        device = result.machine.get("gpu") or f"{result.machine['cpu_count']} CPU cores"
        where = f"{result.raw.workload.model}, {device}"
        tail = f"{where} | [{name}]({folder}/{name}.json) |"
        for figure in figures(result):
            row = f"| `{figure.name}` | {figure.meaning} | {figure.ratio:.2f}x | {_medians(figure)} | {tail}"
            rows[NAMES.index(figure.name), "", where] = row
        for what, value in _sizes(result):
            rows[len(NAMES), what, where] = f"| {what} | | | {value} | {tail}"
    head = "| figure | of what | ratio | from → to | model, device | command and samples |\n|---|---|---|---|---|---|\n"
    return head + "".join(f"{rows[key]}\n" for key in sorted(rows))


def replaced(text: str, table: str) -> str:
    """`text` with `table` between its marks.

    Raises:
        ValueError: the marks do not stand there once each, in their order.
    """
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise ValueError(f"README: allowed: {BEGIN} and behind it {END}, once each")
    before, _, rest = text.partition(BEGIN)
    return f"{before}{BEGIN}\n{table}{END}{rest.partition(END)[2]}"


def link(page: Path, measurements: Path) -> str:
    """The folder of the results as `page` links to it."""
    return Path(os.path.relpath(measurements.resolve(), page.resolve().parent)).as_posix()


def _medians(figure: Figure) -> str:
    if figure.throughput:
        return f"{1 / figure.other:.2f} → {1 / figure.ours:.2f} images/s"
    return f"{figure.other:.2f} → {figure.ours:.2f} s"


def _sizes(result: Result) -> list[tuple[str, str]]:
    """What has no ratio: memory, and the bundle's size and bake."""
    raw = result.raw
    found = []
    gpu = [f"{LABEL[m.side]} {size(m.gpu)}" for m in raw.memory if m.gpu is not None]
    if gpu:
        found.append(("GPU memory after the load", ", ".join(gpu)))
    if raw.memory:
        found.append(
            ("host memory (PSS) after the load", ", ".join(f"{LABEL[m.side]} {size(m.pss)}" for m in raw.memory))
        )
    if raw.bundle:
        found.append(("bundle on disk", size(raw.bundle.bytes)))
        if raw.bundle.bake_seconds is not None:
            found.append(("bake", f"{raw.bundle.bake_seconds:.0f} s"))
    return found
