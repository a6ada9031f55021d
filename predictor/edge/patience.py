"""How long a client is willing to wait, as its headers say.

X-Request-Deadline         a moment, ISO 8601 with its offset, or seconds since the epoch
x-stainless-read-timeout   seconds, which OpenAI's SDKs send with every request; a stream is not bound by it, because
                           its heartbeats are read in time
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

    deadline: float | None = None  # seconds since the epoch
    job_after: float | None = None  # seconds; 0: at once; None: it wants its pictures, not a job


def patience(headers: Mapping[str, str], now: float, *, stream: bool = False) -> Patience:
    """What `headers` (lower-case names) say.

    Raises:
        InvalidField: a header that cannot be read, or a deadline that has passed.
    """
    deadlines = []
    if given := headers.get("x-request-deadline"):
        deadlines.append(_moment(given, now))
    seconds = _number(headers.get("x-stainless-read-timeout", ""))
    if seconds is not None and seconds > 0 and not stream:
        deadlines.append(now + seconds)
    return Patience(min(deadlines, default=None), _job_after(headers.get("prefer", "")))


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
