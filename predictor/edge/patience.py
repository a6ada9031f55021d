"""How long a client is willing to wait, as its headers say.

X-Request-Deadline         a moment, ISO 8601 with its offset, or seconds since the epoch
x-stainless-read-timeout   seconds after which OpenAI's SDKs hang up, to ask again or to give up; a stream is not bound
                           by it, because its heartbeats are read in time
Prefer: respond-async      answer 202 and the job at once (RFC 7240, section 4.1)
Prefer: wait=N             the same after N seconds, unless the pictures are done by then (section 4.3)
"""

import math
import re
from collections.abc import Mapping
from datetime import datetime

import msgspec

from predictor.core.problems import InvalidField


class Patience(msgspec.Struct, frozen=True):
    """Until when the client waits for its pictures (None: as long as the edge does), and from when on a job will do."""

    deadline: float | None = None  # seconds since the epoch; the work is worth nothing then
    hangs_up: float | None = None  # likewise; but it may ask again for what goes on meanwhile
    job_after: float | None = None  # seconds; 0: at once; None: it wants its pictures, not a job

    @property
    def earliest(self) -> float | None:
        """When it has gone, one way or the other."""
        return min((moment for moment in (self.deadline, self.hangs_up) if moment is not None), default=None)


def patience(headers: Mapping[str, str], now: float, *, stream: bool = False) -> Patience:
    """What `headers` (lower-case names) say.

    Raises:
        InvalidField: a header that cannot be read, or a deadline that has passed.
    """
    given = headers.get("x-request-deadline")
    seconds = _number(headers.get("x-stainless-read-timeout", ""))
    return Patience(
        deadline=_moment(given, now) if given else None,
        hangs_up=now + seconds if seconds and not stream else None,
        job_after=_job_after(headers.get("prefer", "")),
    )


def is_retry(headers: Mapping[str, str]) -> bool:
    """Whether an SDK of OpenAI sends the request for the second time or later."""
    count = _number(headers.get("x-stainless-retry-count", ""))
    return count is not None and count > 0


def will_retry(headers: Mapping[str, str]) -> bool:
    """Whether the client is one that asks again after its connection has ended."""
    return "x-stainless-retry-count" in headers


def _moment(given: str, now: float) -> float:
    moment = _number(given)
    if moment is None:
        try:
            moment = datetime.fromisoformat(given).timestamp() if re.search(r"(Z|[+-]\d\d:?\d\d)$", given) else None
        except (ValueError, OverflowError):
            moment = None
    allowed = "a moment in the future, ISO 8601 with its offset, or seconds since the epoch"
    if moment is None or moment <= now:
        raise InvalidField.of("X-Request-Deadline", given, allowed)
    return moment


def _job_after(prefer: str) -> float | None:
    found: float | None = None
    for preference in prefer.split(","):
        name, _, text = (part.strip() for part in preference.partition(";")[0].partition("="))
        seconds = _number(text.strip('"'))
        if name.lower() == "respond-async" and found is None:
            found = 0.0
        elif name.lower() == "wait" and seconds is not None:
            found = seconds
        # A preference that is not understood is ignored (RFC 7240, section 2).
    return found


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) and number >= 0 else None
