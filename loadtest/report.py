"""A run as one HTML file that needs nothing else: verdicts first, then numbers, then plots, then what is missing."""

from collections.abc import Sequence
from html import escape
from importlib import resources
from pathlib import Path

from loadtest import plots, samples
from loadtest.html import image, plot, section, table
from loadtest.quantiles import Estimate, Latencies, cycles_needed
from loadtest.results import Result
from loadtest.run import Run
from loadtest.samples import MEANING, Sample
from loadtest.summary import Spread

_ENOUGH = 50  # requests for windows of throughput to say something
_OF_PARTS = ("p50", "p95")
_TIGHT = 0.1  # of the median: the width that a number of cycles is named for


def write_report(path: Path, found: Result, run: Run) -> None:
    """Write it."""
    path.write_text(page(found, run), encoding="utf-8")


def page(found: Result, run: Run) -> str:
    """The whole document."""
    last = samples.outcomes(run.attempts)
    style = resources.files(__package__).joinpath("report.css").read_text(encoding="utf-8")
    verdict = "" if not found.requirements else " — passed" if found.met else " — not passed"
    title = f"{found.scenario_name}: {found.scenario.about}"
    parts = [
        f"<h1>{escape(found.scenario_name)}{verdict}</h1>",
        f"<p class=about>{escape(found.scenario.about)}. {escape(found.date)}.</p>",
        "".join(f"<p class=warning>{escape(words)}</p>" for words in found.warnings),
        _requirements(found),
        _comparisons(found),
        _outcomes(found),
        _latencies(found),
        plot("Latency over time", plots.over_time(last, found.held), _over_time_words(found)),
        plot(
            "Distribution",
            plots.distributions(last),
            "Every answered request is one step. Requests that were given up never come up.",
        ),
        _cold(found),
    ]
    if len(last) >= _ENOUGH and not found.scenario.from_zero:
        words = "Each point is one window of the run; a service that keeps up stays on the dotted line."
        parts.append(plot("Throughput against latency", plots.throughput(last, found.scenario), words))
    if (drawn := plots.stages(last)) is not None:
        words = "What answered requests waited for and what was computed, as the product tells."
        parts.append(plot("Stages", drawn, words))
    parts += [_cost(found), _trust(found, last)]
    body = "\n".join(part for part in parts if part)
    return (
        "<!doctype html>\n<html lang=en>\n<meta charset=utf-8>\n"
        "<meta name=viewport content='width=device-width, initial-scale=1'>\n"
        f"<title>{escape(title)}</title>\n<style>\n{style}</style>\n<main>\n{body}\n</main>\n</html>\n"
    )


def _requirements(found: Result) -> str:
    rows = [
        (
            "✓ met" if gate.met else "✗ not met",
            gate.text,
            gate.problem or f"{'at least ' if gate.at_least else ''}{gate.got:.6g}",
        )
        for gate in found.requirements
    ]
    return section("Requirements", table(("", "requirement", "got"), rows)) if rows else ""


def _comparisons(found: Result) -> str:
    rows = [
        (one.name, _seconds(one.a), _seconds(one.b), f"{one.ratio:.3f} [{one.low:.3f}, {one.high:.3f}]", one.verdict)
        for one in found.comparisons
    ]
    if not rows:
        return ""
    words = "Both were asked in turn, in one run. The ratio is b's over a's, with its 95 % interval."
    return section("a against b", table(("", "a", "b", "ratio", "verdict"), rows), words)


def _outcomes(found: Result) -> str:
    rows: list[tuple[str, str, str, str, str]] = []
    for target, summary in found.targets.items():
        named = f"{target} ({found.asked[target].dialect})"
        rows += [
            (named, outcome, f"{count}", f"{count / max(1, summary.requests):.2%}", meaning)
            for outcome, meaning in MEANING.items()
            if (count := summary.outcomes[outcome])
        ]
        rows.append((named, "requests", f"{summary.requests}", "", f"in {summary.attempts} attempts"))
    return section("Every request has one outcome", table(("", "", "requests", "share", ""), rows, numbers=(2, 3)))


def _latencies(found: Result) -> str:
    rows = []
    for target, summary in found.targets.items():
        for group, spread in summary.latency.items():
            rows.append((target, group, f"{spread.count}", f"{spread.censored}", *_cells(spread)))
    head = ("", "", "requests", "given up", "mean", "p50", "p90", "p95", "p99", "longest")
    words = (
        "Seconds from the intended start to the last byte; exact percentiles (nearest rank) with 95 % bootstrap "
        "intervals. ≥: falls on a request that its client gave up. °: too few samples for an upper end."
    )
    if found.scenario.from_zero:
        words += " Requests of one cycle share its start: cycles count as samples, not requests."
    return section("Latency", table(head, rows, numbers=range(2, 10)), words)


def _cells(spread: Spread) -> list[str]:
    # The longest is what it is: no interval says more.
    *shares, longest = spread.quantiles.values()
    return [
        *(_estimate(one) for one in (spread.mean, *shares)),
        f"{'≥ ' if longest.at_least else ''}{longest.value:.3f}",
    ]


def _estimate(one: Estimate) -> str:
    mark = "" if one.bounded or one.low == one.high else "°"
    high = f"{'≥ ' if one.high_at_least else ''}{one.high:.3f}{mark}"
    return f"{'≥ ' if one.at_least else ''}{one.value:.3f}\n[{one.low:.3f}, {high}]"


def _cold(found: Result) -> str:
    if not found.starts:
        return ""
    rows, drawn = [], []
    for target, summary in found.targets.items():
        starts = [start for start in found.starts if start.target == target]
        if not starts:
            continue
        drawn.append(image(plots.waterfall(starts), f"waterfall of {target}'s median and worst cold start"))
        for name, spread in summary.parts.items():
            source = next(part.source for start in starts for part in start.parts if part.name == name)
            shown = [_estimate(spread.quantiles[one]) for one in _OF_PARTS]
            rows.append(
                (
                    target,
                    name,
                    source,
                    f"{spread.count}",
                    _estimate(spread.mean),
                    *shown,
                    f"{spread.quantiles['max'].value:.3f}",
                )
            )
    head = ("", "part", "told by", "starts", "mean", *_OF_PARTS, "longest")
    before = [start.state for start in found.starts]
    states = sorted({f"node {one.node}, image {one.image}, page cache {one.page_cache}" for one in before})
    facts = [
        f"State before: {'; '.join(states)}.",
        f"Zero: {'; '.join(f'{words} ({count})' for words, count in found.zeros.items())}.",
        *(f"Missing: {words}." for words in found.missing),
        _needed(found),
    ]
    words = (
        "Parts follow each other and add up to the whole. What nobody reports is a part of its own; it is negative "
        "where reports overlap, for Kubernetes tells a container's start to the second."
    )
    listed = "".join(f"<li>{escape(fact)}</li>" for fact in facts if fact)
    parts = table(head, rows, numbers=range(3, 8))
    return section("Cold starts", f"<ul>{listed}</ul>" + "".join(drawn) + parts + _told(found), words)


def _told(found: Result) -> str:
    """The product's own phases: medians; they overlap, so they do not add up."""
    names = dict.fromkeys(name for start in found.starts for name in start.told)
    rows = []
    for name in names:
        seconds = sorted(start.told[name] for start in found.starts if name in start.told)
        rows.append((name, f"{len(seconds)}", *(f"{seconds[k]:.3f}" for k in (0, len(seconds) // 2, -1))))
    if not rows:
        return ""
    head = ("the product's own phase", "starts", "shortest", "median", "longest")
    return "<p>Inside, as the product tells; these overlap.</p>" + table(head, rows, numbers=range(1, 5))


def _needed(found: Result) -> str:
    seconds = [start.seconds for start in found.starts if start.target == "a"]
    if len(seconds) < 5:
        return "Fewer than five starts: too few to say how many are needed."
    pilot = Latencies.of(seconds)
    width = _TIGHT * pilot.quantile(0.5)
    count = cycles_needed(pilot, 0.5, width)
    if count is None:
        return ""
    return (
        f"For an interval of the median no wider than {width:.2f} s (a tenth of it), about {count} cycles are needed."
    )


def _cost(found: Result) -> str:
    rows = []
    for target, summary in found.targets.items():
        cost = summary.cost
        rows.append(
            (
                target,
                f"{cost.images}",
                _number(cost.busy_seconds_per_image),
                _number(cost.gpu_seconds_per_image),
                _number(cost.usd_per_1000_images),
                cost.price or "",
            )
        )
    words = "Computing is what answers tell. Held counts each pod from its creation to its end, its idle tail included"
    words += "." if found.held is not None else "; nobody could see pods in this run, so it is not known."
    head = ("", "pictures", "computing, s per picture", "held, GPU-s per picture", "$ per 1000", "price")
    return section("Cost", table(head, rows, numbers=range(1, 5)), words)


def _trust(found: Result, last: Sequence[Sample]) -> str:
    late = found.lateness.quantiles
    nobody = "—" if found.unexplained is None else f"{found.unexplained:.1%}"
    rows = [
        ("the generator began requests late by", f"p50 {1000 * late['p50'].value:.2f} ms, p99 "
         f"{1000 * late['p99'].value:.2f} ms, at most {1000 * late['max'].value:.2f} ms"),
        ("of all cold starts' seconds, nobody explains", nobody),
        ("clients gave up after", f"{found.scenario.timeout:g} s"),
        ("seed", f"{found.seed}"),
        ("command", found.command),
        ("commit", found.commit),
        ("generator", ", ".join(f"{name} {value}" for name, value in found.generator.items())),
    ]  # fmt: skip
    errors = dict.fromkeys(f"{s.outcome}: {s.error}" for s in last if s.outcome not in ("ok", "refused") and s.error)
    listed = "".join(f"<li>{escape(words)}</li>" for words in list(errors)[:10])
    words = f"<p>What went wrong, in its own words (ten at most):</p><ul class=errors>{listed}</ul>" if listed else ""
    return section("How far to believe this", table(("", ""), rows) + words)


def _over_time_words(found: Result) -> str:
    words = "One mark for each request, at its intended start; below, how many were waiting"
    return f"{words}, and how many pods were there." if found.held is not None else f"{words}. Pods could not be seen."


def _seconds(value: float) -> str:
    return f"{value:.3f} s"


def _number(value: float | None) -> str:
    return "—" if value is None else f"{value:.3f}"
