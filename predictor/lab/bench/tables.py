"""A result as Markdown tables."""

import statistics
from collections.abc import Sequence
from typing import Final

from predictor.lab.bench.figures import batch_medians, quantile, singles
from predictor.lab.bench.results import ColdStart, Raw, Result, SideName

LABEL: Final[dict[SideName, str]] = {
    "plain": "plain diffusers handler",
    "compile": "the same with torch.compile",
    "eager": "sdzero, eager engine",
    "lean": "sdzero, lean engine",
}


def tables(name: str, result: Result) -> str:
    """One result as Markdown: what ran where, the ratios, and a table per facet that was measured."""
    work = result.raw.workload
    machine = ", ".join(f"{key} {value}" for key, value in result.machine.items())
    head = (
        f"## {name}\n\n{work.model}, {work.width}x{work.height}, {work.steps} {work.sampler} steps, "
        f"guidance {work.guidance_scale:g}. {machine}. {result.date[:10]}, commit {result.commit}.\n\n"
        f"    {result.command}\n"
    )
    ratio = _table(("ratio", "the other divided by ours"), [(f"`{k}`", f"{v:.2f}x") for k, v in result.ratios.items()])
    facets = [draw(result.raw) for draw in (_cold, _cold_dropped, _single, _load, _batch, _memory, _bundle)]
    missing = "Missing:\n\n" + "".join(f"- {line}\n" for line in result.missing) if result.missing else ""
    return "\n".join(part for part in [head, ratio, *facets, missing] if part)


def _cold(raw: Raw) -> str:
    rows = [
        (LABEL[side], len(samples), f"{port:.2f} s", *_spread([s.first_image for s in samples]))
        for side, samples in _by_side(raw, "warm")
        for port in [statistics.median(s.port_open for s in samples)]
    ]
    return _table(("cold start, from spawn", "trials", "port open", "first image", "fastest", "slowest"), rows)


def _cold_dropped(raw: Raw) -> str:
    rows = [
        (
            LABEL[side],
            len(samples),
            *_spread([s.first_image for s in samples]),
            size(min(s.evicted_bytes for s in samples)),
            f"{max(s.resident_share or 0.0 for s in samples):.1%}",
        )
        for side, samples in _by_side(raw, "dropped")
    ]
    head = ("cold start, page cache dropped", "trials", "first image", "fastest", "slowest")
    return _table((*head, "evicted, at least", "still resident, at most"), rows)


def _single(raw: Raw) -> str:
    rows = []
    for side in LABEL:
        seconds = singles(raw, side)
        if seconds:
            tail = f"{quantile(seconds, 0.95):.3f} s"
            rows.append((LABEL[side], len(seconds), f"{statistics.median(seconds):.3f} s", tail))
    return _table(("warm, one image", "requests", "median", "p95"), rows)


def _batch(raw: Raw) -> str:
    rows = []
    for images, side, median in batch_medians(raw):
        rows.append((images, LABEL[side], f"{median:.3f} s", f"{images / median:.2f}"))
    return _table(("images in one request", "", "median", "images/s"), rows)


def _load(raw: Raw) -> str:
    rows = []
    for schedule in dict.fromkeys(run.schedule for run in raw.load):
        for side in LABEL:
            runs = [run for run in raw.load if run.schedule == schedule and run.side == side]
            if not runs:
                continue
            latencies = [seconds for run in runs for seconds in run.latencies]
            count = sum(len(run.arrivals) for run in runs)
            rate = runs[0].requested_rate
            rows.append(
                (
                    schedule,
                    LABEL[side],
                    "at once" if rate is None else f"{rate:.2f}/s",
                    f"{statistics.median(run.achieved_rate for run in runs):.2f}/s",
                    f"{quantile(latencies, 0.5):.2f} s" if latencies else "",
                    f"{quantile(latencies, 0.95):.2f} s" if latencies else "",
                    f"{count - len(latencies)} of {count}",
                    f"{max(a.sent - a.intended for run in runs for a in run.arrivals) * 1000:.0f} ms",
                )
            )
    return _table(("open-loop load", "", "asked", "achieved", "p50", "p95", "failed", "sent late by at most"), rows)


def _memory(raw: Raw) -> str:
    rows = [
        (LABEL[m.side], size(m.rss_peak), size(m.pss), "" if m.gpu is None else size(m.gpu), m.gpu_from or "")
        for m in raw.memory
    ]
    return _table(("memory after the load", "host, peak RSS", "host, PSS", "GPU", "GPU as"), rows)


def _bundle(raw: Raw) -> str:
    if raw.bundle is None:
        return ""
    bake = "" if raw.bundle.bake_seconds is None else f"{raw.bundle.bake_seconds:.0f} s"
    return _table(("bundle", "on disk", "bake"), [(raw.bundle.name, size(raw.bundle.bytes), bake)])


def size(count: int) -> str:
    """Bytes in MB or GB, powers of ten."""
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def _by_side(raw: Raw, page_cache: str) -> list[tuple[SideName, list[ColdStart]]]:
    chosen = [(side, [s for s in raw.cold if (s.side, s.page_cache) == (side, page_cache)]) for side in LABEL]
    return [(side, samples) for side, samples in chosen if samples]


def _spread(seconds: Sequence[float]) -> tuple[str, str, str]:
    return f"{statistics.median(seconds):.2f} s", f"{min(seconds):.2f} s", f"{max(seconds):.2f} s"


def _table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    if not rows:
        return ""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines) + "\n"
