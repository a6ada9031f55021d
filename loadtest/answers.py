"""What a service said, in whatever dialect, and what that makes of a request; pure."""

import hashlib
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from loadtest.plan import Shot
from loadtest.samples import Outcome
from predictor.core.problems import (
    PROBLEMS,
    Draining,
    NotReady,
    QueueFull,
    QuotaExceeded,
    Refused,
    TooSlow,
)

# Said before any work was done for the request, and on purpose.
_TURNED_AWAY: Final = (Refused, NotReady, Draining, QueueFull, QuotaExceeded, TooSlow)
_PNG: Final = b"\x89PNG\r\n\x1a\n"


@dataclass
class Answer:
    """An answer that was read to its end. `files` holds (number of the picture, its file) as they came."""

    status: int
    files: list[tuple[int, bytes]] = field(default_factory=list)
    ended: bool = True  # False: a stream that stopped without its last event
    code: str = ""
    error: str = ""
    cold: bool | None = None
    cache: str = ""
    job: str = ""
    gpu_seconds: float | None = None
    server_timing: str = ""
    bytes: int = 0


class Unreadable(ValueError):
    """An answer of success that is not in its dialect."""


def told(answer: Answer, headers: Mapping[str, str]) -> Answer:
    """Put in what the product says in headers (names in small letters); another product's answers simply lack them."""
    answer.cold = {"true": True, "false": False}.get(headers.get("x-sdzero-cold-start", ""), answer.cold)
    answer.cache = headers.get("x-cache", answer.cache)
    answer.job = headers.get("x-sdzero-job", answer.job)
    answer.server_timing = headers.get("server-timing", answer.server_timing)
    return answer


def outcome(answer: Answer, shot: Shot) -> tuple[Outcome, str]:
    """How the request ended, and why in words where it is not well. Pixels are compared after the run."""
    if answer.code or answer.status != 200:
        kind = PROBLEMS.get(answer.code)
        refused = issubclass(kind, _TURNED_AWAY) if kind else answer.status in (400, 401, 403, 404, 413, 422, 429)
        return ("refused" if refused else "failed"), answer.error
    if not answer.ended:
        return "lost", "the stream stopped without its last event"
    numbers = [number for number, _ in answer.files]
    if len(set(numbers)) < len(numbers) or len(numbers) > shot.images:
        return "duplicated", f"{len(numbers)} pictures, numbered {numbers}; asked for {shot.images}"
    if len(numbers) < shot.images:
        return "wrong", f"{len(numbers)} pictures; asked for {shot.images}"
    for _, file in answer.files:
        measured = png_size(file)
        if measured is None:
            return "wrong", "a picture that is no PNG file"
        if shot.size not in ("auto", measured):
            return "wrong", f"a picture of {measured}; asked for {shot.size}"
    return "ok", ""


def png_size(file: bytes) -> str | None:
    """WIDTHxHEIGHT of a PNG file's header; None of anything else."""
    if len(file) < 24 or not file.startswith(_PNG):
        return None
    width, height = struct.unpack(">II", file[16:24])
    return f"{width}x{height}"


def digest(file: bytes) -> str:
    """16 hexadecimal digits of its SHA-256."""
    return hashlib.sha256(file).hexdigest()[:16]


def digests(files: Sequence[tuple[int, bytes]]) -> str:
    """Of each picture, in the order of their numbers."""
    return " ".join(digest(file) for _, file in sorted(files, key=lambda pair: pair[0]))
