"""Knative's pod autoscaler: from what was measured to how many pods are wanted.

After knative/serving pkg/autoscaler/scaling/autoscaler.go, pkg/autoscaler/config and
pkg/reconciler/autoscaling/resources/target.go (1.21), whose names the settings keep. Pure: no clock, no randomness.
"""

import math
from dataclasses import dataclass
from typing import Final, Literal

from predictor.lab.sim.buckets import Aggregation, LatestMaximum, Window

TICK: Final = 2.0  # seconds between two decisions
_RANGES: Final[dict[str, tuple[float, float]]] = {  # pkg/apis/autoscaling/annotation_validation.go
    "container_concurrency": (0, 1000),
    "target_utilization_percentage": (1, 100),
    "window": (6, 3600),
    "panic_window_percentage": (1, 100),
    "panic_threshold_percentage": (110, 1000),
    "target_burst_capacity": (-1, math.inf),
    "scale_down_delay": (0, 3600),
    "scale_to_zero_grace_period": (0, 3600),
    "scale_to_zero_pod_retention_period": (0, 3600),
    "activation_scale": (1, math.inf),
    "min_scale": (0, math.inf),
    "max_scale": (0, math.inf),
    "timeout_seconds": (1, 3600),
}


@dataclass(frozen=True, kw_only=True)
class Autoscaling:
    """A revision's settings, with Knative's defaults; periods in seconds.

    Raises:
        ValueError: a value that Knative's webhook would refuse, naming it and what is allowed.
    """

    container_concurrency: int = 0  # requests that a pod gets at once; 0 is no limit
    metric: Literal["concurrency", "rps"] = "concurrency"
    target: float | None = None  # per pod; None is container_concurrency, or 100 without one, or 200 for rps
    target_utilization_percentage: float = 70
    window: int = 60
    panic_window_percentage: float = 10
    panic_threshold_percentage: float = 200
    max_scale_up_rate: float = 1000
    max_scale_down_rate: float = 2
    target_burst_capacity: float = 211
    aggregation: Aggregation = "linear"
    scale_down_delay: float = 0
    enable_scale_to_zero: bool = True
    scale_to_zero_grace_period: float = 30
    scale_to_zero_pod_retention_period: float = 0
    activation_scale: int = 1
    min_scale: int = 0
    max_scale: int = 0  # 0 is no limit
    progress_deadline: float = 600
    timeout_seconds: float = 300  # of a request, waiting included; a pod's termination lasts no longer either

    def __post_init__(self) -> None:
        for name, (low, high) in _RANGES.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise ValueError(f"{name}: got {value}; allowed: {low:g} to {high:g}")
        if self.max_scale and self.max_scale < self.min_scale:
            raise ValueError(f"max_scale: got {self.max_scale}; allowed: 0 (no limit), or min_scale, {self.min_scale}")
        if self.target is not None and self.target < 0.01:
            raise ValueError(f"target: got {self.target}; allowed: 0.01 or more")

    @property
    def total(self) -> float:
        """What one pod can take at once."""
        total = 200.0 if self.metric == "rps" else float(self.container_concurrency or 100)
        if self.target is None:
            return total
        capped = self.metric == "concurrency" and self.container_concurrency
        return min(self.target, self.container_concurrency) if capped else self.target

    @property
    def target_value(self) -> float:
        """What the autoscaler wants one pod to have on average."""
        return max(0.01, self.total * self.target_utilization_percentage / 100)

    @property
    def panic_window(self) -> int:
        """Seconds."""
        return max(1, round(self.window * self.panic_window_percentage / 100))


@dataclass(frozen=True)
class Decision:
    """What one look at the windows leads to."""

    desired: int
    excess_burst_capacity: float  # below 0 the activator stays in the path of requests
    panicking: bool


class Decider:
    """One revision's decisions; its memory is two windows, the panic and what it delays."""

    def __init__(self, spec: Autoscaling, ready: int = 0, now: float = 0.0) -> None:
        self.spec = spec
        self.stable = Window(spec.window, spec.aggregation)
        self.panic = Window(spec.panic_window, spec.aggregation)
        # A new autoscaler knows nothing yet of pods that it finds: it begins in panic and keeps them.
        self.panic_since: float | None = now if ready > 1 else None
        self.max_panic = ready
        self._delay = LatestMaximum(spec.scale_down_delay, TICK) if spec.scale_down_delay > 0 else None

    def record(self, second: int, value: float) -> None:
        """Add what was measured for `second`: concurrency or requests, of all pods together."""
        self.stable.record(second, value)
        self.panic.record(second, value)

    def decide(self, now: float, ready: int, *, reachable: bool = True) -> Decision | None:
        """How many pods are wanted with `ready` of them ready; None if nothing was measured for a whole window."""
        second = int(now)
        if self.stable.is_empty(second):
            return None
        spec = self.spec
        stable, panic = self.stable.mean(second), self.panic.mean(second)
        pods = max(1, ready)
        up = math.ceil(spec.max_scale_up_rate * pods)
        down = math.floor(pods / spec.max_scale_down_rate) if reachable else 0
        for_stable, for_panic = math.ceil(stable / spec.target_value), math.ceil(panic / spec.target_value)
        desired = min(max(for_stable, down), up)
        surge = min(max(for_panic, down), up)
        if spec.activation_scale > 1:
            desired = max(desired, spec.activation_scale) if for_stable else desired
            surge = max(surge, spec.activation_scale) if for_panic else surge

        if for_panic / pods >= spec.panic_threshold_percentage / 100:
            self.panic_since = now
        elif self.panic_since is not None and self.panic_since + spec.window < now:
            self.panic_since, self.max_panic = None, 0
        if self.panic_since is not None:
            self.max_panic = desired = max(self.max_panic, desired, surge)
        if self._delay is not None and reachable:
            desired = self._delay.record(now, desired)

        excess = -1.0
        if spec.target_burst_capacity == 0:
            excess = 0.0
        elif spec.target_burst_capacity > 0:
            excess = math.floor(ready * spec.total - spec.target_burst_capacity - panic)
        return Decision(desired, excess, self.panic_since is not None)
