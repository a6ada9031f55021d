"""The discrete-event loop: arrivals of a trace meet revisions, pods and GPUs; every request ends in one outcome."""

import heapq
import itertools
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

from predictor.lab.sim.cluster import Cluster, Pool
from predictor.lab.sim.edge import Edge, EdgeCache
from predictor.lab.sim.kpa import Autoscaling
from predictor.lab.sim.measured import DRAIN, PLATFORM_FLOOR, TEARDOWN, ColdStart, Predictor
from predictor.lab.sim.pod import Pod
from predictor.lab.sim.revision import Revision
from predictor.lab.sim.trace import Trace

Handler = Callable[[float, Any], None]


class Outcome(IntEnum):
    """How a request ended."""

    OPEN = 0
    DRAWN = 1
    CACHED = 2
    JOINED = 3
    TIMED_OUT = 4  # 504
    REFUSED = 5  # 503: the activator's queue is full


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """One way to serve: what runs in a pod, who scales it, on which machines. Seconds throughout."""

    name: str
    predictor: Predictor
    autoscaling: Autoscaling
    pool: Pool = field(default_factory=Pool)
    edge: EdgeCache | None = field(default_factory=EdgeCache)  # None: nothing is in front of the activator
    floor: tuple[float, float] = PLATFORM_FLOOR  # a pod's start, beyond its process
    drain: float = DRAIN
    teardown: float = TEARDOWN
    queue_depth: int = 10_000  # of the activator, for each revision
    engine_sleeps_after: float | None = None  # idle seconds until the engine ends and the pod stays; None: never


@dataclass(kw_only=True)
class Run:
    """What came of it. `latencies` are seconds, by request; of those that were not answered they mean nothing."""

    outcomes: list[Outcome]
    latencies: list[float]
    cold: list[bool]  # no pod was ready when it came
    pod_lives: list[float]  # seconds with a GPU, termination included
    engine_seconds: float  # of them, with an engine's process on the GPU
    busy_seconds: float  # of them, computing
    node_lives: list[float]  # empty where the pool is unbounded
    holds: list[tuple[float, int]]  # (moment, +1 or -1 GPU held), in order
    replicas: list[tuple[float, int]]  # (moment, +1 or -1 pod wanted), in order: a pod that drains is none any more
    end: float


class World:
    """One simulation; `run` may be called once."""

    def __init__(self, trace: Trace, configuration: Configuration, seed: int) -> None:
        self.trace = trace
        self.configuration = configuration
        self.chance = random.Random(seed)  # noqa: S311
        self.cluster = Cluster(configuration.pool, self.chance)
        self.edge = Edge(configuration.edge or EdgeCache(), self.chance)
        self.trace_at: list[float] = trace.at.tolist()
        self.trace_images: list[int] = trace.images.tolist()
        self.trace_steps: list[int] = trace.steps.tolist()
        self.pending: deque[tuple[Revision, Pod]] = deque()  # pods without a GPU, in order
        self._events: list[tuple[float, int, Handler, Any]] = []
        self._number = itertools.count()
        self._open = len(self.trace_at)
        self._held = 0
        self._pods: set[Pod] = set()
        count = len(self.trace_at)
        self.result = Run(
            outcomes=[Outcome.OPEN] * count,
            latencies=[0.0] * count,
            cold=[False] * count,
            pod_lives=[],
            engine_seconds=0.0,
            busy_seconds=0.0,
            node_lives=[],
            holds=[],
            replicas=[],
            end=0.0,
        )
        self.revisions = [Revision(self, model) for model in range(len(trace.models))]
        self._kept = configuration.autoscaling.min_scale * len(self.revisions)

    def run(self, progress: Callable[[int], None] | None = None) -> Run:
        """Replay the trace, and go on until what it woke sleeps again; `progress` hears of 1000 arrivals each."""
        events, at = self._events, self.trace_at
        models, identities = self.trace.model.tolist(), self.trace.identities() if self.configuration.edge else None
        following, count, now = 0, len(at), 0.0
        while True:
            if following < count and (not events or at[following] <= events[0][0]):
                now = at[following]
                self._arrive(now, following, models[following], identities[following] if identities else None)
                following += 1
                if progress is not None and not following % 1000:
                    progress(1000)
            elif events and (self._open or self._held > self._kept):
                now, _, handler, argument = heapq.heappop(events)
                handler(now, argument)
            else:
                return self._close(now)

    def at(self, when: float, handler: Handler, argument: Any) -> None:
        """Call `handler(when, argument)` then."""
        heapq.heappush(self._events, (when, next(self._number), handler, argument))

    def _arrive(self, now: float, request: int, model: int, identity: int | None) -> None:
        answered = self.edge.admit(now, request, identity)
        if answered is not None:
            if answered:
                self._settle(request, Outcome.CACHED, answered)
            return
        revision = self.revisions[model]
        self.result.cold[request] = not revision.ready
        if not revision.arrive(now, request):
            self._lose(now, request, Outcome.REFUSED)

    def answer(self, now: float, request: int) -> None:
        """The request's pictures have left the pod."""
        waited = now - self.trace_at[request]
        if waited > self.configuration.autoscaling.timeout_seconds:
            self._lose(now, request, Outcome.TIMED_OUT)
            return
        self._settle(request, Outcome.DRAWN, waited)
        for follower in self.edge.drawn(now, request):
            self._settle(follower, Outcome.JOINED, now - self.trace_at[follower])

    def time_out(self, now: float, request: int) -> None:
        """The request has waited longer than it may."""
        self._lose(now, request, Outcome.TIMED_OUT)

    def _lose(self, now: float, request: int, outcome: Outcome) -> None:
        for lost in (request, *self.edge.lost(request)):
            self._settle(lost, outcome, now - self.trace_at[lost])

    def _settle(self, request: int, outcome: Outcome, latency: float) -> None:
        self.result.outcomes[request] = outcome
        self.result.latencies[request] = latency
        self._open -= 1

    def draw_start(self) -> ColdStart:
        """One of the measured starts."""
        return self.chance.choice(self.configuration.predictor.cold_starts)

    def draw_floor(self) -> float:
        """What the platform adds to a start."""
        return self.chance.uniform(*self.configuration.floor)

    def hold(self, now: float, gpus: int) -> None:
        """Note that a GPU is held, or no longer."""
        self._held += gpus
        self.result.holds.append((now, gpus))

    def started(self, pod: Pod) -> None:
        """Remember a pod that holds a GPU."""
        self._pods.add(pod)

    def let_go(self, now: float, pod: Pod) -> None:
        """A pod is gone: its GPU goes to the pod that has waited longest, or becomes idle."""
        self._pods.discard(pod)
        self._book(now, pod)
        self.hold(now, -1)
        placement = pod.placement
        assert placement is not None
        if placement.node is None:
            return
        if self.cluster.release(now, placement.node):
            self.at(now + self.configuration.pool.consolidate_after, self.cluster.retire, placement.node)
        while self.pending and self.pending[0][0].begin(now, self.pending[0][1]):
            self.pending.popleft()

    def _book(self, now: float, pod: Pod) -> None:
        assert pod.placement is not None
        self.result.pod_lives.append(max(0.0, now - pod.placement.bound))
        self.result.engine_seconds += pod.held(now)
        self.result.busy_seconds += pod.engine.busy_seconds

    def _close(self, now: float) -> Run:
        end = max(now, self.trace.seconds)
        for pod in self._pods:
            self._book(end, pod)
        self.result.holds.sort(key=lambda change: change[0])
        self.result.node_lives = self.cluster.lives(end)
        self.result.end = end
        return self.result
