"""A replay as latencies and pods: what a cluster did, and what a simulated one does with the same arrivals; pure."""

import random
from collections.abc import Sequence

import msgspec
import numpy as np
import numpy.typing as npt

from loadtest import samples
from loadtest.run import Held
from loadtest.samples import Sample
from predictor.lab.sim.kpa import TICK
from predictor.lab.sim.trace import Trace
from predictor.lab.sim.world import Configuration, Outcome, World

Curve = npt.NDArray[np.float64]  # by second


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """One replay in numbers, seconds; percentiles are samples (nearest rank)."""

    p50: float
    p95: float
    mean: float
    starts: int  # of pods
    pod_seconds: float  # from a pod's creation until it is gone
    replica_seconds: float  # until it is told to go


class Played(msgspec.Struct, frozen=True, kw_only=True):
    """A replay, real or simulated."""

    latencies: list[float]  # rising
    pods: list[tuple[float, float]]  # since, until; from the replay's start
    replicas: list[tuple[float, float]]

    @property
    def figures(self) -> Figures:
        """Its numbers."""
        waited = self.latencies
        p50, p95 = (waited[-(-len(waited) * share // 100) - 1] for share in (50, 95))
        return Figures(
            p50=p50,
            p95=p95,
            mean=sum(waited) / len(waited),
            starts=len(self.pods),
            pod_seconds=sum(until - since for since, until in self.pods),
            replica_seconds=sum(until - since for since, until in self.replicas),
        )


def measured(found: Sequence[Sample], held: Sequence[Held]) -> Played:
    """What the cluster did.

    Raises:
        ValueError: a request was not answered, or a pod's end was not seen: nothing could be compared with that.
    """
    last = samples.outcomes(found)
    failed = [sample for sample in last if sample.outcome != "ok"]
    if failed:
        raise ValueError(f"request {failed[0].index}: got {failed[0].outcome}; allowed: a run that was answered")
    spans = []
    for pod in held:
        if pod.leaving is None or pod.until is None:
            raise ValueError(f"pod of second {pod.since:.0f}: its end was not seen; allowed: a run from zero to zero")
        spans.append((pod.since, pod.leaving, pod.until))
    return Played(
        latencies=sorted(sample.latency for sample in last),
        pods=[(since, until) for since, _, until in spans],
        replicas=[(since, leaving) for since, leaving, _ in spans],
    )


def simulated(found: Sequence[Sample], configuration: Configuration, seed: int) -> Played:
    """The same arrivals in one world."""
    shift = random.Random(seed).uniform(TICK, 2 * TICK)  # noqa: S311  # worlds look at even seconds
    rows = samples.outcomes(found)
    rows.sort(key=lambda sample: sample.intended)
    trace = Trace(
        name="replay",
        at=np.array([shift + sample.intended for sample in rows]),
        images=np.array([sample.images for sample in rows]),
        steps=np.array([sample.steps for sample in rows]),
        model=np.zeros(len(rows), int),
        models=("all",),
    )
    run = World(trace, configuration, seed).run()
    if set(run.outcomes) != {Outcome.DRAWN}:
        raise ValueError(f"{configuration.name}: a simulated request was not answered; allowed: a longer timeout")
    return Played(latencies=sorted(run.latencies), pods=_spans(run.holds, shift), replicas=_spans(run.replicas, shift))


def _spans(changes: Sequence[tuple[float, int]], shift: float) -> list[tuple[float, float]]:
    """Each rise with a fall; which of several that is matters for no sum and no count."""
    rises = [at - shift for at, by in changes if by > 0]
    falls = [at - shift for at, by in changes if by < 0]
    return list(zip(sorted(rises), sorted(falls), strict=True))


def curve(spans: Sequence[tuple[float, float]], seconds: int) -> Curve:
    """How many there were on average in each second."""
    edges = np.arange(seconds + 1)
    inside = [np.clip(until - edges, 0, None) - np.clip(since - edges, 0, None) for since, until in spans]
    left: Curve = np.sum(inside, axis=0) if inside else np.zeros(seconds + 1)
    return left[:-1] - left[1:]
