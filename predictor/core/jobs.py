"""Jobs and generations: what a caller asked for, and the work that the GPU does for one or more of them.

A *generation* is a resolved request that runs once; its fingerprint fixes the pixels. A *job* is one caller's claim on
a generation: identical requests in flight share one, a cached result is one that has already ended. A synchronous
request is a job as well, `sync`, which lives as long as its connection.

    generation   waiting ─► running ─► done | failed | cancelled        (running ─► waiting when its edge died)
    job          active ──────────────► done | failed | cancelled
"""

from typing import Literal

import msgspec

from predictor.core.problems import ModerationBlocked, ProblemRecord
from predictor.core.request import GenerationRequest, ImageEncoding

GenerationState = Literal["waiting", "running", "done", "failed", "cancelled"]
JobState = Literal["active", "done", "failed", "cancelled"]
JobKind = Literal["sync", "job"]


class StoredImage(msgspec.Struct, frozen=True):
    """One picture in the image store: a PNG file without loss."""

    name: str
    seed: int
    bytes: int


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What a generation came to."""

    images: tuple[StoredImage, ...]
    revision: str  # of the model that made them
    prompt_tokens: int
    negative_prompt_tokens: int
    gpu_seconds: float
    timing: dict[str, float]  # seconds by stage, in the order of `Server-Timing`
    cold_start: bool  # whether the predictor had to start for it
    waited: float = 0.0  # seconds between sending it to a sleeping predictor and its being accepted
    scores: tuple[float, ...] = ()  # of the safety classifier, one per picture; empty without one


class Generation(msgspec.Struct, frozen=True, kw_only=True):
    """A row of the table `generations`. Times are seconds since the epoch."""

    id: str
    tenant: str
    request: GenerationRequest
    revision: str
    fingerprint: str
    cacheable: bool  # whether its seed was asked for
    state: GenerationState = "waiting"
    attempt: int = 0  # how often it was started
    created: float
    deadline: float
    started: float | None = None
    finished: float | None = None
    result: Result | None = None
    problem: ProblemRecord | None = None


class Verdict(msgspec.Struct, frozen=True):
    """What moderation decided when a job was admitted: its prompt passed, and its pictures must stay below a score."""

    policy: str
    threshold: float | None = None  # None: its pictures are not judged


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """A row of the table `jobs`, with its generation. Times are seconds since the epoch."""

    id: str
    kind: JobKind
    tenant: str
    key_id: str
    request_id: str
    state: JobState = "active"
    created: float
    finished: float | None = None
    generation: Generation
    encoding: ImageEncoding = ImageEncoding()
    cached: bool = False  # answered by a generation that had ended before
    joined: bool = False  # shares a generation that somebody else had begun
    replay_of: str | None = None
    body_hash: str = ""  # hex SHA-256 of what was asked, in canonical form
    idempotency_key: str | None = None
    webhook: str | None = None
    end_user: str | None = None
    problem: ProblemRecord | None = None
    verdict: Verdict | None = None


def withheld(job: Job, result: Result) -> ProblemRecord | None:
    """Why the job may not have the pictures of `result`; None if it may."""
    threshold = job.verdict.threshold if job.verdict else None
    if threshold is None or max(result.scores, default=0.0) < threshold:
        return None
    scores = ", ".join(f"{score:.2f}" for score in result.scores)
    message = f"pictures: the safety classifier gave {scores}; allowed: below {threshold:.2f}"
    return ModerationBlocked(message).record()
