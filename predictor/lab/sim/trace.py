"""Requests in time: read from a file, or drawn from a process with a seed.

A file is CSV, perhaps gzipped. Of GenTD26 (Alibaba, cluster-trace-v2026-GenAI; SoCC '25) these columns are read:
`gmt_create`, `num_images_per_prompt`, `num_inference_steps`, `checkpoint_model_version_id`. The project's own columns
are `at` (seconds), `images`, `steps`, and if wanted `model` and `identity` (equal words: the same request).
"""

import csv
import gzip
import io
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

STEPS: Final = 30  # of a generated request; 91 % of GenTD26's
Generator = np.random.Generator


@dataclass(frozen=True, kw_only=True)
class Trace:
    """One row per request, in order of time; all arrays have one length.

    Raises:
        ValueError: no request, times out of order, or images or steps below 1.
    """

    name: str
    at: npt.NDArray[np.float64]  # seconds from the trace's start
    images: npt.NDArray[np.int64]
    steps: npt.NDArray[np.int64]
    model: npt.NDArray[np.int64]  # index of `models`
    models: tuple[str, ...]
    identity: npt.NDArray[np.int64] | None = None  # equal numbers: the same request; None: nobody knows

    def __post_init__(self) -> None:
        if not len(self.at):
            raise ValueError(f"{self.name}: no requests")
        if np.any(np.diff(self.at) < 0) or self.at[0] < 0:
            raise ValueError(f"{self.name}: times must not fall, nor be below 0")
        for column in ("images", "steps"):
            if np.any(getattr(self, column) < 1):
                raise ValueError(f"{self.name}: {column} must be 1 or more")

    @property
    def seconds(self) -> float:
        """Until the last arrival."""
        return float(self.at[-1])

    def identities(self) -> list[int] | None:
        """One per request; None without."""
        return None if self.identity is None else self.identity.tolist()

    def merged(self) -> "Trace":
        """The same requests, all for one model."""
        return replace(self, model=np.zeros_like(self.model), models=("all",))


def read(path: Path) -> Trace:
    """The trace of a file.

    Raises:
        ValueError: naming the file, the line and the column, what came and what is allowed.
    """
    content = path.read_bytes()
    text = (gzip.decompress(content) if path.suffix == ".gz" else content).decode()
    rows = csv.DictReader(io.StringIO(text, newline=""))
    columns = rows.fieldnames or []
    if "gmt_create" in columns:
        return _gentd26(path, rows)
    missing = {"at", "images", "steps"} - set(columns)
    if missing:
        raise ValueError(f"{path.name}: no column {', '.join(sorted(missing))}; there are {', '.join(columns)}")
    return _own(path, rows)


def _gentd26(path: Path, rows: "csv.DictReader[str]") -> Trace:
    found = []
    for row in rows:
        came = _cell(path, rows, "gmt_create", row, datetime.fromisoformat)
        images = _cell(path, rows, "num_images_per_prompt", row, _count, empty=1)
        steps = _cell(path, rows, "num_inference_steps", row, _count, empty=STEPS)
        found.append((came, images, steps, row["checkpoint_model_version_id"], None))
    first = min((row[0] for row in found), default=None)
    return _trace(path, [((came - first).total_seconds(), *rest) for came, *rest in found])


def _own(path: Path, rows: "csv.DictReader[str]") -> Trace:
    return _trace(
        path,
        [
            (
                _cell(path, rows, "at", row, float),
                _cell(path, rows, "images", row, _count),
                _cell(path, rows, "steps", row, _count),
                row.get("model") or "all",
                row.get("identity") or None,
            )
            for row in rows
        ],
    )


def _trace(path: Path, found: Iterable[tuple[Any, ...]]) -> Trace:
    rows = sorted(found, key=lambda row: row[0])
    models: dict[str, int] = {}
    identities: dict[str, int] = {}
    for number, (*_, model, identity) in enumerate(rows):
        models.setdefault(model, len(models))
        # One without an identity is like no other.
        identities.setdefault(f"={identity}" if identity is not None else f"#{number}", len(identities))
    known = any(row[4] is not None for row in rows)
    same = [identities[f"={row[4]}" if row[4] is not None else f"#{number}"] for number, row in enumerate(rows)]
    return Trace(
        name=path.name.removesuffix(".gz").removesuffix(".csv"),
        at=np.array([row[0] for row in rows], float),
        images=np.array([row[1] for row in rows], int),
        steps=np.array([row[2] for row in rows], int),
        model=np.array([models[row[3]] for row in rows], int),
        models=tuple(models),
        identity=np.array(same, int) if known else None,
    )


def _cell(
    path: Path,
    rows: "csv.DictReader[str]",
    column: str,
    row: Mapping[str, str],
    read_as: Callable[[str], Any],
    *,
    empty: int | None = None,
) -> Any:
    text = row[column]
    if not text and empty is not None:
        return empty
    try:
        return read_as(text)
    except (TypeError, ValueError):
        raise ValueError(f"{path.name}, line {rows.line_num}: {column}: got {text!r}") from None


def _count(text: str) -> int:
    number = float(text)
    if number != int(number) or number < 1:
        raise ValueError(text)
    return int(number)


def generate(words: str, seed: int) -> Trace:
    """A trace from words: `poisson:rate=0.1,hours=24`, `diurnal:…,peak=3`, `burst:size=16,every=600,hours=2`.

    `rate` is requests per second on average, `peak` the busiest moment of a day over the average, `images` per request.

    Raises:
        ValueError: naming what came and what is allowed.
    """
    kind, _, rest = words.partition(":")
    known = {
        "poisson": {"rate": 0.1, "hours": 24.0, "images": 1.0, "steps": float(STEPS)},
        "diurnal": {"rate": 0.1, "hours": 24.0, "peak": 1.8, "images": 1.0, "steps": float(STEPS)},
        "burst": {"size": 16.0, "every": 600.0, "hours": 2.0, "images": 1.0, "steps": float(STEPS)},
    }
    if kind not in known:
        raise ValueError(
            f"{words}: no such file, and no process; allowed: a CSV file, or {', '.join(known)}:KEY=NUMBER,…"
        )
    values = dict(known[kind])
    for pair in filter(None, rest.split(",")):
        name, _, text = pair.partition("=")
        if name not in values:
            raise ValueError(f"{words}: got {name!r}; allowed: {', '.join(values)}")
        try:
            values[name] = float(text)
        except ValueError:
            raise ValueError(f"{words}: {name}: got {text!r}; allowed: a number") from None
        if not 0 < values[name] < math.inf:
            raise ValueError(f"{words}: {name}: got {text}; allowed: above 0")
    seconds = values["hours"] * 3600
    chance = np.random.default_rng(seed)
    if kind == "burst":
        starts = np.arange(0.0, seconds, values["every"])
        at = np.repeat(starts, int(values["size"]))
    else:
        at = _process(chance, values["rate"], seconds, values.get("peak", 1.0), words)
    count = len(at)
    return Trace(
        name=words,
        at=at,
        images=np.full(count, int(values["images"])),
        steps=np.full(count, int(values["steps"])),
        model=np.zeros(count, int),
        models=("all",),
    )


def _process(chance: Generator, rate: float, seconds: float, peak: float, words: str) -> npt.NDArray[np.float64]:
    """A Poisson process whose rate swings like a sine over a day, drawn by thinning (Lewis and Shedler, 1979)."""
    if not 1 <= peak <= 2:
        raise ValueError(f"{words}: peak: got {peak:g}; allowed: 1 to 2, for a rate that swings evenly")
    count = chance.poisson(rate * peak * seconds)
    at = np.sort(chance.uniform(0.0, seconds, count))
    swing = 1 + (peak - 1) * np.sin(2 * np.pi * (at / 86_400 - 0.25))
    kept: npt.NDArray[np.float64] = at[chance.uniform(0.0, peak, count) < swing]
    return kept
