"""One run: cycles of a scenario, each driven by a Locust process, joined with what was seen and judged afterwards."""

import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from loadtest import pictures, samples
from loadtest.coldstarts import asked_at_edge
from loadtest.deployments import Deployment, Life, NotAtZero, Unseen
from loadtest.generating import GeneratorFailed, generate
from loadtest.job import PICTURES, Job, Started, TargetSpec
from loadtest.phases import ColdStart, Moment, cold_phases, join
from loadtest.plan import PROMPTS, Shot, shots
from loadtest.samples import Sample
from loadtest.scenarios import Scenario

_EARLY: Final = 1.0  # seconds: the cluster stamps whole ones, so a pod may seem older than the request that made it
ZERO: Final = 900.0  # seconds in which a deployment must come to zero


class Held(msgspec.Struct, frozen=True, kw_only=True):
    """A pod's life in seconds from the run's start; see `Life`."""

    target: str
    since: float
    ready: float | None = None
    leaving: float | None = None
    until: float | None


@dataclass(frozen=True)
class Run:
    """What came of it. Samples of later cycles count from the start of the first, as everything here does."""

    scenario: Scenario
    seed: int
    started: Started
    attempts: list[Sample]  # judged, of all cycles
    starts: list[ColdStart]
    held: list[Held] | None
    zeros: dict[str, int]  # how it was known that a cycle began at zero, and how often
    missing: list[str]
    broken: str = ""  # why there are fewer cycles than there should be


def run(
    scenario: Scenario,
    targets: Mapping[str, TargetSpec],
    folder: Path,
    *,
    seed: int | None = None,
    deployments: Mapping[str, Deployment] | None = None,
    key: str | None = None,
    prompts: Sequence[str] = PROMPTS,
    metrics_port: int = 0,
    say: Callable[[str], object] = lambda _: None,
) -> Run:
    """Drive all cycles.

    Args:
        scenario: what is asked for and when. With two targets and from zero, there are `cycles` for each.
        targets: `a`, and `b` for a comparison.
        folder: an empty folder for samples and pictures.
        seed: of the schedule and the pictures; drawn if None, for a cache must not know them.
        deployments: what can be seen of each target; nothing by default.
        key: API key.
        prompts: to draw from.
        metrics_port: of the Prometheus exporter; 0 is none.
        say: is told how far it is.

    Raises:
        ValueError: the scenario sends nothing.
        NotAtZero: the first cycle could not begin. A later one ends the run, and what was measured is kept.
        GeneratorFailed: likewise, Locust's process failed.
    """
    seed = secrets.randbelow(2**31) if seed is None else seed
    seen = {name: (deployments or {}).get(name, Unseen(scenario.idle)) for name in targets}
    cycles = scenario.cycles * (len(targets) if scenario.from_zero else 1)
    attempts: list[Sample] = []
    starts: list[ColdStart] = []
    zeros: dict[str, int] = {}
    first: Started | None = None
    names = list(targets)
    broken = ""
    for cycle in range(cycles):
        due = shots(scenario, seed, cycle, names, prompts)
        name = due[0].target
        inner = folder / f"cycle-{cycle:03}"
        inner.mkdir(parents=True)
        job = Job(
            targets=dict(targets),
            shots=due,
            warm_up=_warm_up(scenario, due, seed, names),
            cycle=cycle,
            timeout=scenario.timeout,
            retries=scenario.retries,
            backoff=scenario.backoff,
            folder=str(inner.resolve()),
            metrics_port=metrics_port,
        )
        try:
            if scenario.from_zero:
                say(f"cycle {cycle + 1}/{cycles}: waiting until {name} is at zero")
                words = seen[name].wait_for_zero(ZERO)
                zeros[words] = zeros.get(words, 0) + 1
            say(f"cycle {cycle + 1}/{cycles}: {len(due)} requests in {due[-1].at:.0f} s")
            began, found = generate(job, inner, key)
        except (NotAtZero, GeneratorFailed, KeyboardInterrupt) as error:
            if first is None:
                raise
            broken = f"cycle {cycle + 1} of {cycles} and those after it: {error or 'interrupted'}"
            say(broken)
            break
        first = first or began
        moved = [_moved(sample, began.at - first.at) for sample in found]
        if scenario.from_zero:
            moved = _marked(moved)
            starts += _start(moved, seen[name], targets[name], first, key)
        attempts += moved
    if scenario.from_zero and not broken and any(deployment.lives() is not None for deployment in seen.values()):
        say("waiting until the last pods are gone: their tail is part of the bill")
        for deployment in seen.values():
            deployment.wait_for_zero(ZERO)
    assert first is not None
    judged = [
        sample
        for name in names
        for sample in pictures.judged([s for s in attempts if s.target == name], _pixels(folder))
    ]
    return Run(
        scenario=scenario,
        seed=seed,
        started=first,
        attempts=sorted(judged, key=lambda sample: (sample.cycle, sample.index, sample.attempt)),
        starts=starts,
        held=_held(seen, first),
        zeros=zeros,
        missing=sorted({words for start in starts for words in start.missing} | ({broken} if broken else set())),
        broken=broken,
    )


def _warm_up(scenario: Scenario, due: Sequence[Shot], seed: int, targets: Sequence[str]) -> list[Shot]:
    """Pictures that nobody asks for again, of the first requests' sizes and steps."""
    return [
        msgspec.structs.replace(
            due[number % len(due)],
            index=-1 - number,
            target=target,
            identity=-1 - number,
            repeated=False,
            seed=(seed * 1_000_003 - 1 - number) % 2**32,
        )
        for number in range(scenario.warm_up)
        for target in targets
    ]


def _moved(sample: Sample, by: float) -> Sample:
    moved = {name: getattr(sample, name) + by for name in ("intended", "sent", "connected", "finished")}
    if sample.first_byte is not None:
        moved["first_byte"] = sample.first_byte + by
    return msgspec.structs.replace(sample, **moved)


def _marked(found: Sequence[Sample]) -> list[Sample]:
    """Samples of a cycle from zero: whoever was due before its first answer has waited for the start.

    A predictor calls those cold that it took before its first picture; of a burst's others only their clients know.
    """
    first = min((sample.finished for sample in found if sample.outcome == "ok"), default=float("inf"))
    return [msgspec.structs.replace(one, cold=bool(one.cold) or one.intended < first) for one in found]


def _start(
    found: Sequence[Sample], deployment: Deployment, target: TargetSpec, first: Started, key: str | None
) -> list[ColdStart]:
    """The cold start of a cycle: of the request that woke it, as an edge says, or else of the first one."""
    answered = [sample for sample in samples.outcomes(found) if sample.outcome == "ok"]
    if not answered:
        return []
    woke = min(answered, key=lambda one: ("wake;dur=" not in one.server_timing, one.intended, one.finished))
    begun = first.epoch + min(sample.sent for sample in found)
    moments = [_from_start(moment, first.epoch) for moment in deployment.start_after(begun - _EARLY)]
    # The start of a pod that came after the picture was not the one that made it.
    moments = moments if moments and moments[0].at < woke.finished else []
    told = cold_phases(woke.server_timing) or asked_at_edge(target, key, begun - _EARLY, first.epoch + woke.finished)
    return [join(woke, moments=moments, told=told)]


def _from_start(moment: Moment, epoch: float) -> Moment:
    return msgspec.structs.replace(
        moment,
        at=moment.at - epoch,
        received=moment.received - epoch,
        reported=None if moment.reported is None else moment.reported - epoch,
    )


def _held(seen: Mapping[str, Deployment], first: Started) -> list[Held] | None:
    found: list[Held] = []
    known = {name: deployment.lives() for name, deployment in seen.items()}
    if any(lives is None for lives in known.values()):
        return None
    for name, lives in known.items():
        found += [_life(name, life, first.epoch) for life in lives or ()]
    return found


def _life(target: str, life: Life, epoch: float) -> Held:
    def moved(at: float | None) -> float | None:
        return None if at is None else at - epoch

    return Held(
        target=target,
        since=life.since - epoch,
        ready=moved(life.ready),
        leaving=moved(life.leaving),
        until=moved(life.until),
    )


def _pixels(folder: Path) -> Callable[[str], pictures.Pixels | None]:
    """Of files kept in any cycle: a repeated picture is asked for in all of them."""
    loaders = [pictures.from_folder(path) for path in sorted(folder.glob(f"cycle-*/{PICTURES}"))]

    def load(digest: str) -> pictures.Pixels | None:
        return next((found for loader in loaders if (found := loader(digest)) is not None), None)

    return load


def seconds_held(run: Run, target: str) -> list[float] | None:
    """GPU-seconds of each pod of a target during the run; what still holds one at the end is counted until then."""
    if run.held is None:
        return None
    end = max(sample.finished for sample in run.attempts)
    return [
        max(0.0, (max(end, held.since) if held.until is None else held.until) - held.since)
        for held in run.held
        if held.target == target
    ]


def local_time(epoch: float) -> str:
    """ISO 8601, UTC, to the second."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(epoch))
