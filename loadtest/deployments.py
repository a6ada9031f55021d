"""What can be seen of a deployment besides its answers: whether it is at zero, its pods' lives, their starts.

`Unseen` knows nothing and says so; `loadtest/cluster.py` watches a cluster. Times are seconds since the epoch on this
machine's clock.
"""

import time
from collections.abc import Sequence
from typing import Protocol

import msgspec

from loadtest.phases import Moment


class NotAtZero(Exception):
    """The deployment did not come to zero in time: whatever follows would be no cold start."""


class Life(msgspec.Struct, frozen=True, kw_only=True):
    """One pod. What is None had not happened when the run ended, or nobody saw it."""

    since: float
    ready: float | None = None  # for the first time
    leaving: float | None = None  # told to go: no replica any more, and yet it holds its GPU
    until: float | None = None


class Deployment(Protocol):
    """What a run asks of whoever watches a deployment."""

    def wait_for_zero(self, most: float) -> str:
        """Return when neither replicas nor pods are left, with words on how that is known; NotAtZero after `most` s."""
        ...

    def start_after(self, moment: float, /) -> Sequence[Moment]:
        """The moments of the first start that began after `moment`; empty if nobody saw one."""
        ...

    def lives(self) -> list[Life] | None:
        """Of every pod that was there during the run; None where nobody could see them."""
        ...


class Unseen:
    """A deployment behind an address, and nothing else; it is said to sleep after `idle` seconds without a request."""

    def __init__(self, idle: float) -> None:
        self._idle = idle

    def wait_for_zero(self, most: float) -> str:
        """Wait as long: that it is at zero then is an assumption."""
        seconds = min(self._idle, most)
        time.sleep(seconds)
        return f"assumed after {seconds:g} s without a request"

    def start_after(self, _: float, /) -> Sequence[Moment]:
        """Nobody saw it."""
        return ()

    def lives(self) -> list[Life] | None:
        """Nobody saw them."""
        return None
