"""From a decision to a number of replicas: bounds, activation, and the way to zero.

After knative/serving pkg/reconciler/autoscaling/kpa/{kpa,scaler}.go (1.21). Pure: the caller brings the time, asks
again when `Verdict.again` says so, and when a decision or the number of ready pods has changed.
"""

from dataclasses import dataclass, replace
from enum import Enum
from typing import Final

from predictor.lab.sim.kpa import Autoscaling

UNKNOWN: Final = -1  # no decision: nothing was measured
ACTIVATION_BUFFER: Final = 30.0  # seconds past the progress deadline before an activation is given up


class Status(Enum):
    """The condition Active of a PodAutoscaler: False, Unknown, True."""

    INACTIVE = "inactive"
    ACTIVATING = "activating"
    ACTIVE = "active"


@dataclass(frozen=True)
class Verdict:
    """`replicas` to set, None to leave them; look `again` after so many seconds, None if only changes matter."""

    replicas: int | None
    again: float | None = None


class Scaler:
    """One revision's condition and its place behind the activator."""

    def __init__(self, spec: Autoscaling, now: float = 0.0) -> None:
        self.spec = spec
        self.status = Status.INACTIVE
        self.since = now  # of the status
        self.proxy_since: float | None = now  # None: requests go straight to pods

    def reconcile(self, now: float, desired: int, excess_burst_capacity: float, ready: int) -> Verdict:
        """What to do with `desired` pods wanted (UNKNOWN: not known) and `ready` of them ready."""
        want, verdict = self._scale(now, desired)
        if want == 0 or excess_burst_capacity < 0 or (want == UNKNOWN and self.status is Status.INACTIVE):
            self.proxy_since = now if self.proxy_since is None else self.proxy_since
        else:
            self.proxy_since = None
        # What it writes into the status has it looked at again at once.
        return replace(verdict, again=0.0) if self._observe(now, want, ready) else verdict

    def _scale(self, now: float, desired: int) -> tuple[int, Verdict]:
        if desired < 0 and self.status is not Status.ACTIVATING:
            return desired, Verdict(None)
        bounded = max(desired, self.spec.min_scale)
        if self.spec.max_scale:
            bounded = min(bounded, self.spec.max_scale)
        if bounded > 0:
            return bounded, Verdict(bounded)
        if not self.spec.enable_scale_to_zero:
            return 1, Verdict(1)
        return self._to_zero(now)

    def _to_zero(self, now: float) -> tuple[int, Verdict]:
        # Rounded: whoever comes back when told to has waited for long enough, whatever binary fractions say.
        spec, waited = self.spec, round(now - self.since, 6)
        if self.status is Status.ACTIVATING:
            limit = spec.progress_deadline + ACTIVATION_BUFFER
            # A client that gave up does not stop the start of the pod that it has asked for.
            return (0, Verdict(0)) if waited >= limit else (UNKNOWN, Verdict(None, limit - waited))
        if self.status is Status.ACTIVE:
            if waited < spec.window:
                return 1, Verdict(1, spec.window - waited)
            return 0, Verdict(None)
        grace, retention = spec.scale_to_zero_grace_period, spec.scale_to_zero_pod_retention_period
        if self.proxy_since is None:
            return 0, Verdict(None, 1.0)  # the probe's period: the activator is not in the path yet
        if waited >= max(grace, retention):
            return 0, Verdict(0)
        if waited < retention:
            return 0, Verdict(None, retention - waited)
        proxied = round(now - self.proxy_since, 6)
        return (0, Verdict(0)) if proxied >= grace else (0, Verdict(None, grace - proxied))

    def _observe(self, now: float, want: int, ready: int) -> bool:
        """Whether the status changes."""
        enough = max(1, self.spec.min_scale)
        status = self.status
        if want == 0:
            status = Status.INACTIVE
        elif want > 0 or self.status is not Status.INACTIVE:
            status = Status.ACTIVE if ready >= enough else Status.ACTIVATING
        if status is self.status:
            return False
        self.status, self.since = status, now
        return True
