"""Every way in which a request can end without its images.

    Problem                        code                HTTP  gRPC                 who should retry
    ├── Refused                    the caller's to mend: the same request fails again
    │   ├── InvalidRequest         invalid_request     400   INVALID_ARGUMENT     nobody
    │   │   ├── InvalidField       invalid_field       400   INVALID_ARGUMENT     nobody: `field` names what to change
    │   │   └── ModerationBlocked  moderation_blocked  400   INVALID_ARGUMENT     nobody: the policy forbids it
    │   ├── Unauthenticated        unauthenticated     401   UNAUTHENTICATED      nobody: no key, or none that is valid
    │   ├── NotFound               not_found           404   NOT_FOUND            nobody
    │   ├── Closed                 closed              403   PERMISSION_DENIED    nobody: this route is shut on purpose
    │   │   └── Forbidden          forbidden           403   PERMISSION_DENIED    nobody: the key lacks a scope
    │   ├── Conflict               conflict            409   ABORTED              nobody: it contradicts what is there
    │   ├── BodyTooLarge           body_too_large      413   RESOURCE_EXHAUSTED   nobody
    │   └── UnsupportedMedia       unsupported_media   415   INVALID_ARGUMENT     nobody
    ├── Temporary                  the service's to mend: the same request may succeed later
    │   ├── NotReady               not_ready           503   UNAVAILABLE          the client, after `retry_after`
    │   ├── Draining               draining            503   UNAVAILABLE          the client, at once: a pod is left
    │   ├── QueueFull              queue_full          429   RESOURCE_EXHAUSTED   the client, after `retry_after`
    │   ├── QuotaExceeded          quota_exceeded      429   RESOURCE_EXHAUSTED   the client, after `retry_after`
    │   │   └── WakeRefused        wake_refused        429   RESOURCE_EXHAUSTED   the client, after `retry_after`
    │   ├── TooSlow                too_slow            503   UNAVAILABLE          the client, with more time or as a job
    │   ├── StoreUnavailable       store_unavailable   503   UNAVAILABLE          the client, after `retry_after`
    │   ├── PredictorLost          predictor_lost      503   UNAVAILABLE          the client, after `retry_after`
    │   ├── OutOfMemory            out_of_memory       503   RESOURCE_EXHAUSTED   the client, after `retry_after`
    │   └── EngineLost             engine_lost         503   UNAVAILABLE          the client, after `retry_after`
    ├── DeadlineExceeded           deadline_exceeded   504   DEADLINE_EXCEEDED    nobody: the time is spent
    ├── Cancelled                  cancelled           499   CANCELLED            nobody: the client has gone
    └── InternalError              internal            500   INTERNAL             nobody: a bug; the log has the cause

The message is for the caller: it says what came and what is allowed, and never holds a traceback or a path.
"""

import reprlib
from typing import ClassVar

import msgspec


def shown(value: object) -> str:
    """`value` for a message: its repr, cut where a client made it long or deep."""
    if isinstance(value, int) and value.bit_length() > 128:
        return f"a whole number of {value.bit_length()} bits"  # repr refuses more than 4300 digits
    # Plain repr would follow nested lists until the stack ends.
    text = reprlib.repr(value) if isinstance(value, list | tuple | dict) else repr(value)
    text = text.encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= 80 else f"{text[:60]}… ({len(text)} characters)"


class Problem(Exception):
    """Why a request ended without images. `retry_after` is in seconds; None says nothing about when."""

    code: ClassVar[str]
    http: ClassVar[int]
    grpc: ClassVar[str]
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, *, field: str | None = None, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.field = field
        self.retry_after = retry_after

    def record(self) -> "ProblemRecord":
        """This problem as data, for a message or a log."""
        return ProblemRecord(self.code, self.message, self.field, self.retry_after)


class Refused(Problem):
    """The caller's to mend."""


class InvalidRequest(Refused):
    """The body cannot be read as a request."""

    code, http, grpc = "invalid_request", 400, "INVALID_ARGUMENT"


class InvalidField(InvalidRequest):
    """One field is wrong; the message reads `field: what came; what is allowed`."""

    code = "invalid_field"

    def __init__(self, message: str, *, field: str, retry_after: float | None = None) -> None:
        super().__init__(message, field=field, retry_after=retry_after)

    @classmethod
    def of(cls, field: str, got: object, allowed: str) -> "InvalidField":
        """`field: got …; allowed: …`, with a long or deep value shortened."""
        return cls.because(field, f"got {shown(got)}", allowed)

    @classmethod
    def because(cls, field: str, came: str, allowed: str) -> "InvalidField":
        """`field: came; allowed: …`, for what came when no single value tells it."""
        # A client may choose the name as well: keep it short, and free of what UTF-8 cannot hold.
        name = field if len(field) <= 120 else f"{field[:100]}… ({len(field)} characters)"
        name = name.encode("utf-8", "backslashreplace").decode()
        return cls(f"{name}: {came}; allowed: {allowed}", field=name)


class ModerationBlocked(InvalidRequest):
    """The deployment's policy forbids the prompt or the picture."""

    code = "moderation_blocked"


class Unauthenticated(Refused):
    """No key came, or none that is valid now."""

    code, http, grpc = "unauthenticated", 401, "UNAUTHENTICATED"


class NotFound(Refused):
    """No such model or version here."""

    code, http, grpc = "not_found", 404, "NOT_FOUND"


class Closed(Refused):
    """A route that this server shuts on purpose."""

    code, http, grpc = "closed", 403, "PERMISSION_DENIED"


class Forbidden(Closed):
    """The key is valid, but may not do this."""

    code = "forbidden"


class Conflict(Refused):
    """The request contradicts what an earlier one has fixed, such as another body under one idempotency key."""

    code, http, grpc = "conflict", 409, "ABORTED"


class BodyTooLarge(Refused):
    """More bytes than the server reads."""

    code, http, grpc = "body_too_large", 413, "RESOURCE_EXHAUSTED"


class UnsupportedMedia(Refused):
    """A body of a type or encoding that this server does not read."""

    code, http, grpc = "unsupported_media", 415, "INVALID_ARGUMENT"


class Temporary(Problem):
    """The service's to mend: the same request may succeed later."""

    retryable = True


class NotReady(Temporary):
    """The engine is still starting."""

    code, http, grpc = "not_ready", 503, "UNAVAILABLE"


class Draining(Temporary):
    """This pod is going away and takes no new work."""

    code, http, grpc = "draining", 503, "UNAVAILABLE"


class QueueFull(Temporary):
    """More images are waiting than the settings allow."""

    code, http, grpc = "queue_full", 429, "RESOURCE_EXHAUSTED"


class QuotaExceeded(Temporary):
    """The key has spent what it may for now."""

    code, http, grpc = "quota_exceeded", 429, "RESOURCE_EXHAUSTED"


class WakeRefused(QuotaExceeded):
    """The GPU sleeps, and this key has woken it as often as it may."""

    code = "wake_refused"


class TooSlow(Temporary):
    """The client would have gone before its images could be done."""

    code, http, grpc = "too_slow", 503, "UNAVAILABLE"


class StoreUnavailable(Temporary):
    """The database, the image store or the quotas' store does not answer."""

    code, http, grpc = "store_unavailable", 503, "UNAVAILABLE"


class PredictorLost(Temporary):
    """The predictor went away, or could not be reached, as often as the edge tries."""

    code, http, grpc = "predictor_lost", 503, "UNAVAILABLE"


class OutOfMemory(Temporary):
    """The device had no memory left for a request that fits when the device is less busy."""

    code, http, grpc = "out_of_memory", 503, "RESOURCE_EXHAUSTED"


class EngineLost(Temporary):
    """The engine process ended while it held the request."""

    code, http, grpc = "engine_lost", 503, "UNAVAILABLE"


class DeadlineExceeded(Problem):
    """The request's time ran out before its images were done."""

    code, http, grpc = "deadline_exceeded", 504, "DEADLINE_EXCEEDED"


class Cancelled(Problem):
    """The client went away or took the request back. 499 is nginx's code for it; no client reads it."""

    code, http, grpc = "cancelled", 499, "CANCELLED"


class InternalError(Problem):
    """A bug. The caller learns only that; the log has the cause."""

    code, http, grpc = "internal", 500, "INTERNAL"


PROBLEMS: dict[str, type[Problem]] = {
    kind.code: kind
    for kind in (
        InvalidRequest,
        InvalidField,
        ModerationBlocked,
        Unauthenticated,
        NotFound,
        Closed,
        Forbidden,
        Conflict,
        BodyTooLarge,
        UnsupportedMedia,
        NotReady,
        Draining,
        QueueFull,
        QuotaExceeded,
        WakeRefused,
        TooSlow,
        StoreUnavailable,
        PredictorLost,
        OutOfMemory,
        EngineLost,
        DeadlineExceeded,
        Cancelled,
        InternalError,
    )
}


class ProblemRecord(msgspec.Struct, frozen=True):
    """A problem as data."""

    code: str
    message: str
    field: str | None = None
    retry_after: float | None = None

    def problem(self) -> Problem:
        """The exception that this record describes."""
        # mypy sees Problem's signature; a record of InvalidField always has its field.
        return PROBLEMS[self.code](self.message, field=self.field, retry_after=self.retry_after)
