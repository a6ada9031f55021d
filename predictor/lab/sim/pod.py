"""One pod from the moment it holds a GPU until the GPU is free again."""

from enum import Enum

from predictor.lab.sim.cluster import Placement
from predictor.lab.sim.engine import Engine
from predictor.lab.sim.measured import ColdStart, Predictor


class State(Enum):
    """Where a pod is in its life."""

    PENDING = "pending"  # waits for a GPU
    STARTING = "starting"
    READY = "ready"
    LEAVING = "leaving"  # drains: takes no request, keeps the GPU
    GONE = "gone"


class Pod:
    """A pod, its engine, and what both have held so far."""

    __slots__ = (
        "awake_since",
        "awake_total",
        "drained",
        "engine",
        "idle_since",
        "in_flight",
        "loaded",
        "placement",
        "scheduled",
        "start",
        "state",
    )

    def __init__(self, predictor: Predictor, start: ColdStart) -> None:
        self.state = State.PENDING
        self.start = start
        self.placement: Placement | None = None
        self.engine = Engine(predictor)
        self.scheduled: float | None = None  # the engine's next event
        self.in_flight = 0
        self.loaded = False  # the first request has paid for what the start had left to do
        self.drained = False
        self.idle_since = 0.0  # of its last answer
        self.awake_since: float | None = None  # the engine's process holds the device; None: it sleeps
        self.awake_total = 0.0

    def take(self, now: float, request: int, images: int, steps: int) -> None:
        """Give a request to the engine, which may first have to load or to wake."""
        self.in_flight += 1
        if not self.loaded:
            self.loaded = True
            self.engine.stall(now + self.start.first_image_extra)
        if self.awake_since is None:
            self.awake_since = now
            self.engine.stall(now + self.start.ready)
        self.engine.add(now, request, images, steps)

    def sleep(self, now: float) -> None:
        """End the engine's process and keep the pod."""
        if self.awake_since is not None:
            self.awake_total += now - self.awake_since
            self.awake_since = None
