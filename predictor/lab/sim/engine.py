"""An engine's time: rows that step together, by a table of step times.

The same rules as `predictor/engine/schedule.py`, for one size: rows at any step share a call, newcomers join at the
next step, at most `rows` run, the others wait in order. Exact to the step, but only changes of the batch cost an event.
Pure: the caller brings the time and comes back at `wake`.
"""

import heapq
import math
from collections import deque

from predictor.lab.sim.batches import Batches
from predictor.lab.sim.measured import Predictor


class Engine:
    """One pod's device. `busy_seconds` is the time in which it computed."""

    __slots__ = (
        "_at",
        "_batches",
        "_decode",
        "_each",
        "_ends",
        "_left",
        "_limit",
        "_number",
        "_running",
        "_solo",
        "_step",
        "_waiting",
        "busy_seconds",
        "wake",
    )

    def __init__(self, predictor: Predictor) -> None:
        self._limit = predictor.rows
        self._solo = predictor.one_request_at_a_time
        self._batches = Batches(predictor.steps, predictor.rows)
        self._decode = predictor.decode.table(predictor.rows)
        self._waiting: deque[tuple[int, int, int]] = deque()  # (request, rows, steps)
        self._ends: list[tuple[int, int, int, int]] = []  # (last step, number, request, rows)
        self._left: dict[int, int] = {}  # rows that a request still waits for
        self._running = 0
        self._number = 0
        self._each = 0.0  # seconds of the steps until `wake`
        self._at = 0.0  # when step `_step` had been done
        self._step = 0
        self.wake: float | None = None
        self.busy_seconds = 0.0

    @property
    def idle(self) -> bool:
        """Whether nothing runs or waits."""
        return not self._left

    def stall(self, until: float) -> None:
        """Compute nothing before `until`: a model is being loaded. Only for an engine that is idle."""
        self._at = max(self._at, until)

    def add(self, now: float, request: int, rows: int, steps: int) -> None:
        """Queue a request's rows at `now`; `wake` may move."""
        self._waiting.append((request, rows, steps))
        self._left[request] = rows
        if not self._running:
            self._at = max(self._at, now)
            self._admit()
        elif not self._solo and self._running < self._limit and self.wake is not None:
            boundary = self._at + max(0, math.ceil((now - self._at) / self._each - 1e-9)) * self._each
            self.wake = min(self.wake, boundary)

    def restart(self) -> None:
        """Another process takes over an engine that is idle."""
        self._batches.forget()

    def advance(self, now: float) -> list[tuple[int, float]]:
        """Go on to `now`, which is `wake`: returns (request, when the device let go of it), and sets `wake` anew."""
        done: list[tuple[int, float]] = []
        if self._running:
            passed = round((now - self._at) / self._each)
            self._batches.stepped(self._at, self._running, passed)
            self._step += passed
            self._at += passed * self._each
            self.busy_seconds += passed * self._each
        finished: list[tuple[int, int]] = []
        while self._ends and self._ends[0][0] <= self._step:
            _, _, request, rows = heapq.heappop(self._ends)
            self._running -= rows
            finished.append((request, rows))
        if finished:
            pause = self._decode[sum(rows for _, rows in finished)]
            self._at += pause
            self.busy_seconds += pause
            for request, rows in finished:
                self._left[request] -= rows
                if not self._left[request]:
                    del self._left[request]
                    done.append((request, self._at))
        self._admit()
        return done

    def _admit(self) -> None:
        waiting, ends = self._waiting, self._ends
        while waiting and self._running < self._limit and not (self._solo and self._running):
            request, rows, steps = waiting[0]
            taken = min(rows, self._limit - self._running)
            if taken == rows:
                waiting.popleft()
            else:
                waiting[0] = (request, rows - taken, steps)
            self._number += 1
            heapq.heappush(ends, (self._step + steps, self._number, request, taken))
            self._running += taken
        if not ends:
            self.wake = None
            return
        self._each, until = self._batches.step(self._at, self._running)
        left = ends[0][0] - self._step
        self.wake = self._at + (left if until is None else min(left, until)) * self._each
