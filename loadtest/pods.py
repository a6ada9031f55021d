"""What a pod does on the cluster where it runs: samples of load tests → the simulator's `Predictor`; pure.

Nothing is taken from the run that a simulation is compared with: step times come from single requests to a pod that is
awake, starts from requests to a service at zero.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from statistics import median

import numpy as np

from loadtest.phases import ColdStart as Seen
from loadtest.phases import timing
from loadtest.samples import Sample
from predictor.lab.sim.measured import PROBE_PERIOD, ColdStart, Predictor, StepTimes

Kind = tuple[int, int, str]  # images, steps, size


def predictor(kind: Predictor, warm: Sequence[Sequence[Sample]], starts: Sequence[tuple[Sample, Seen]]) -> Predictor:
    """`kind` with the times of this cluster, the platform's share of a start included.

    Where answers tell their stages, a step of n images is `denoise` over steps of requests for n images, and a start is
    what a request at zero waited for besides its steps, its decoding and what a request needs anyway. Where they do
    not, latency is a line over the number of steps, all but its slope happens once a request, and a start is what is
    above that line.

    Args:
        kind: how many images go into a call, and whether strangers share one.
        warm: runs with requests that overlap no other; those that do are left out.
        starts: cold starts, each of its own cycle: the request and what was seen of its pod.

    Raises:
        ValueError: naming what was not measured.
    """
    alone = _by_kind(warm)
    told = any("denoise" in timing(sample.server_timing) for group in alone.values() for sample in group)
    found = _told(kind, alone) if told else _untold(kind, alone)
    cold = [(sample, seen) for sample, seen in starts if sample.outcome == "ok"]
    if not cold:
        raise ValueError("starts: got none that was answered; allowed: one or more")
    return replace(
        found,
        cold_starts=tuple(
            ColdStart(sample.latency - _making(sample, found), noticed=_noticed(sample, seen)) for sample, seen in cold
        ),
    )


def _by_kind(runs: Sequence[Sequence[Sample]]) -> Mapping[Kind, list[Sample]]:
    """Those that had a pod for themselves."""
    found: dict[Kind, list[Sample]] = defaultdict(list)
    for sample in (one for run in runs for one in _alone(run)):
        found[sample.images, sample.steps, sample.size].append(sample)
    if len({size for _, _, size in found}) != 1:
        raise ValueError(f"warm requests: got sizes {sorted({size for _, _, size in found})}; allowed: one size")
    return found


def _alone(run: Sequence[Sample]) -> Iterator[Sample]:
    rows = sorted(run, key=lambda sample: sample.intended)
    busy = float("-inf")
    for number, sample in enumerate(rows):
        follower = rows[number + 1].intended if number + 1 < len(rows) else float("inf")
        if sample.outcome == "ok" and not sample.cold and busy < sample.intended and sample.finished < follower:
            yield sample
        busy = max(busy, sample.finished)


def _told(kind: Predictor, alone: Mapping[Kind, Sequence[Sample]]) -> Predictor:
    steps, decode, outside = (
        _by_images(alone, value)
        for value in (
            lambda sample, stages: stages["denoise"] / sample.steps,
            lambda _, stages: stages["decode"],
            lambda sample, stages: sample.latency - stages["denoise"] - stages["decode"],
        )
    )
    each, once = np.polyfit([images for images, _ in outside], [seconds for _, seconds in outside], 1)
    return replace(
        kind,
        steps=StepTimes(tuple(steps)),
        decode=StepTimes(tuple(decode)),
        request_overhead=float(once),
        packing=float(each),
        packers=1,
    )


def _by_images(
    alone: Mapping[Kind, Sequence[Sample]], value: Callable[[Sample, Mapping[str, float]], float]
) -> list[tuple[int, float]]:
    """(images, median), by number of images."""
    found: dict[int, list[float]] = defaultdict(list)
    for (images, _, _), group in alone.items():
        found[images] += [value(sample, timing(sample.server_timing)) for sample in group]
    return [(images, median(found[images])) for images in sorted(found)]


def _untold(kind: Predictor, alone: Mapping[Kind, Sequence[Sample]]) -> Predictor:
    single = {steps: group for (images, steps, _), group in alone.items() if images == 1}
    if len(single) < 2:
        raise ValueError(f"warm requests for one image: got steps {sorted(single)}; allowed: two numbers of steps")
    each, once = np.polyfit(
        [steps for steps, group in single.items() for _ in group],
        [sample.latency for group in single.values() for sample in group],
        1,
    )
    # Whoever tells no stages is taken to do everything under its lock.
    return replace(
        kind,
        steps=StepTimes(((1, float(each)), (2, 2 * float(each)))),
        decode=StepTimes(((1, float(once)), (2, 2 * float(once)))),
        request_overhead=0.0,
        packing=0.0,
        packers=1,
    )


def _making(sample: Sample, found: Predictor) -> float:
    """Seconds of a request that has a pod for itself."""
    stages = timing(sample.server_timing)
    if "denoise" in stages:
        computed = stages["denoise"] + stages["decode"]
    else:
        computed = sample.steps * found.steps.table(1)[1] + found.decode.table(1)[1]
    return computed + found.request_overhead + found.packing * sample.images


def _noticed(sample: Sample, seen: Seen) -> float | None:
    """Seconds until the kubelet found the pod ready: if not before the answer came, then with its next probe.

    None where nobody watched the pod.
    """
    at = {moment.name: moment.at - sample.intended for moment in seen.moments}
    if "ready" in at:
        return at["ready"]
    return at["started"] + PROBE_PERIOD if "started" in at else None
