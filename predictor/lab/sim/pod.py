"""One pod from the moment it holds a GPU until the GPU is free again."""

from enum import Enum

from predictor.lab.sim.cluster import Placement
from predictor.lab.sim.engine import Engine
from predictor.lab.sim.measured import ENGINE_END, ColdStart, Predictor


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
        "counted",
        "drained",
        "engine",
        "gone",
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
        self.counted = False  # by the autoscaler
        self.loaded = False  # the first request has paid for what the start had left to do
        self.drained = False
        self.idle_since: float | None = None  # of its last answer, or of its readiness; None: it has work
        self.awake_since: float | None = None  # the engine's process holds the device; None: it sleeps
        self.gone = 0.0  # when the engine that was told to end has let go of the device
        self.awake_total = 0.0

    def take(self, now: float, request: int, images: int, steps: int) -> None:
        """Give a request to the engine, which may first have to load or to wake; whoever comes meanwhile waits too."""
        self.in_flight += 1
        self.idle_since = None
        begins = now
        if self.awake_since is None:
            # Never the memory of two: the next engine starts when the last one has gone.
            self.awake_since = max(now, self.gone)
            self.engine.restart()
            self.loaded = False
            begins = self.awake_since + self.start.wake
        if not self.loaded:
            self.loaded = True
            begins += self.start.first_image_extra
        if begins > now:
            self.engine.stall(begins)
        self.engine.add(now, request, images, steps)

    def sleep(self, now: float) -> None:
        """Tell the engine's process to end, and keep the pod."""
        assert self.awake_since is not None
        self.gone = now + ENGINE_END
        self.awake_total += self.gone - self.awake_since
        self.awake_since = None

    def held(self, now: float) -> float:
        """Seconds until `now` in which an engine's process held the device."""
        if self.awake_since is None:
            return self.awake_total - max(0.0, self.gone - now)
        return self.awake_total + max(0.0, now - self.awake_since)
