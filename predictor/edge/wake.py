"""Whether the predictor sleeps, and how long a request will take: what the edge knows without ever asking.

To ask a predictor at zero whether it is there would start it. So the edge only looks at its own traffic: whoever got
an answer a moment ago is awake, and falls asleep `idle_seconds` after the last one. When in doubt it sleeps, for then
a caller's right to wake it is asked for once too often, and never once too little.
"""

import math
import statistics
from collections import deque

# What a megapixel-step costs before this deployment has made a picture; soon replaced by what it does cost.
FIRST_GUESS = 0.05  # GPU seconds
REMEMBERED = 20  # cold starts, and generations
LOOKED = 1.0  # seconds for which it still sleeps when the database has said so; another edge may have woken it since
SLACK = 1.0  # seconds that a request takes besides its own work: storing, packing, the network


class Watch:
    """The predictor's state and pace. Times are seconds since the epoch.

    Args:
        idle_seconds: how long it stays after its last request.
        cold_start_seconds: first guess, while `cold_starts` is empty.
        cold_starts: seconds of the latest ones, oldest first.
    """

    def __init__(self, idle_seconds: float, cold_start_seconds: float, cold_starts: list[float] | None = None) -> None:
        self.waking_since: float | None = None  # when somebody woke it; None once it has answered
        self._idle_seconds = idle_seconds
        self._first_guess = cold_start_seconds
        self._cold_starts = deque(cold_starts or (), maxlen=REMEMBERED)
        self._costs: deque[float] = deque(maxlen=REMEMBERED)
        self._awake_until = 0.0
        self._asleep_at = -math.inf
        self._woken: float | None = None  # seconds of a start that no request has heard of
        self._busy = 0
        self._no_machine_since: float | None = None
        self._no_machine = 0.0  # seconds of this start, before the present ones, in which no machine was free

    @property
    def cold_start(self) -> float:
        """Seconds that a cold start takes here: the median of the latest."""
        return statistics.median(self._cold_starts) if self._cold_starts else self._first_guess

    @property
    def cost(self) -> float:
        """GPU seconds of a megapixel-step here: the median of the latest generations."""
        return statistics.median(self._costs) if self._costs else FIRST_GUESS

    def sleeps(self, now: float) -> bool:
        """Whether the next request would wake it."""
        return self.waking_since is None and not self._busy and now >= self._awake_until

    def surely_sleeps(self, now: float) -> bool:
        """Whether it sleeps as far as any edge knew a moment ago."""
        return self.sleeps(now) and now < self._asleep_at + LOOKED

    def sent(self, now: float) -> None:
        """A request goes out."""
        if self.sleeps(now):
            self.waking_since = now
            self._no_machine = 0.0
            if self._no_machine_since is not None:
                self._no_machine_since = now
        self._busy += 1

    def told(self, now: float) -> None:
        """It has answered something that makes no pictures: it is awake."""
        if self.waking_since is not None:
            self._woken, self.waking_since = now - self.waking_since, None
        self.seen_awake(now)

    def answered(self, now: float) -> float | None:
        """A request was accepted: it is awake. Returns the seconds that waking it took, to the first only."""
        self.told(now)
        woken, self._woken = self._woken, None
        return woken

    def started(self, seconds: float) -> None:
        """A cold start took so long."""
        self._cold_starts.append(seconds)

    def ended(self, now: float, *, answered: bool) -> None:
        """A request is over, with an answer of the predictor or without one."""
        self._busy -= 1
        if answered:
            self._awake_until = max(self._awake_until, now + self._idle_seconds)
        elif not self._busy:
            self.waking_since = None

    def seen_awake(self, at: float) -> None:
        """Another edge had an answer at that time."""
        self._awake_until = max(self._awake_until, at + self._idle_seconds)

    def seen_asleep(self, at: float) -> None:
        """No edge had an answer lately, and none waits for one: that is what the database knew at that time."""
        self._asleep_at = at

    def spent(self, gpu_seconds: float, megapixel_steps: float) -> None:
        """A generation has cost so much."""
        self._costs.append(gpu_seconds / megapixel_steps)

    def waits_for_machine(self, now: float, *, waits: bool) -> None:
        """Whether no machine is free for it: its start begins when one is, however long ago it was woken."""
        if self._no_machine_since is not None:
            self._no_machine += now - self._no_machine_since
        self._no_machine_since = now if waits else None

    def waits_for_start(self, now: float) -> float:
        """Seconds until it takes requests, once it has a machine: 0 when it is awake; at least one while it is late."""
        if self.waking_since is not None:
            lost = self._no_machine + (0.0 if self._no_machine_since is None else now - self._no_machine_since)
            return max(1.0, self.cold_start - (now - self.waking_since - lost))
        return self.cold_start if self.sleeps(now) else 0.0

    def eta(self, now: float, megapixel_steps: float) -> float:
        """Seconds until a request that is admitted now is done; `megapixel_steps` are its own and those before it."""
        return self.waits_for_start(now) + megapixel_steps * self.cost + SLACK
