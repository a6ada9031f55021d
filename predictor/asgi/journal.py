"""What became of each request: one line in the log and one observation in the metrics, whatever the dialect."""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import structlog

from predictor.asgi.access import BUG
from predictor.core.problems import Cancelled, InternalError, Problem
from predictor.core.request import GenerationRequest

log = structlog.get_logger("sdzero.http")


@dataclass
class Entry:
    """One request while it is being answered."""

    id: str
    dialect: str
    outcome: str = "ok"
    facts: dict[str, object] = field(default_factory=dict)

    def failed(self, problem: Problem) -> None:
        """The request ends with this problem."""
        self.outcome = problem.code
        # The message may quote the caller's text, a prompt included; code and field do not.
        if problem.field is not None:
            self.facts["field"] = problem.field


class Journal:
    """Counts the open requests and writes each down when it ends.

    Args:
        requested: told of each ended request: its dialect, its outcome (`ok` or a problem's code) and its seconds.
        log_prompts: whether prompts may stand in the log.

    Attributes:
        open: requests that are being answered.
        begun: all requests so far.
    """

    def __init__(self, requested: Callable[[str, str, float], None], log_prompts: bool) -> None:
        self._requested = requested
        self._log_prompts = log_prompts
        self.open = 0
        self.begun = 0
        self._idle = asyncio.Event()
        self._idle.set()

    @contextmanager
    def entry(self, id: str, dialect: str) -> Iterator[Entry]:
        """The time in which a request is answered; anything but a `Problem` leaves as `InternalError`, logged."""
        entry = Entry(id, dialect)
        started = time.monotonic()
        self.open += 1
        self.begun += 1
        self._idle.clear()
        try:
            yield entry
        except Problem as problem:
            entry.failed(problem)
            raise
        except asyncio.CancelledError:
            entry.outcome = Cancelled.code
            raise
        except Exception as cause:
            entry.outcome = InternalError.code
            log.exception("bug", request_id=id)
            raise InternalError(BUG) from cause
        finally:
            seconds = time.monotonic() - started
            self._requested(entry.dialect, entry.outcome, seconds)
            log.info(
                "request",
                request_id=id,
                dialect=dialect,
                outcome=entry.outcome,
                seconds=round(seconds, 4),
                **entry.facts,
            )
            self.open -= 1
            if not self.open:
                self._idle.set()

    def resolved(self, entry: Entry, request: GenerationRequest) -> None:
        """Note what is being made; prompts only where the settings allow it."""
        for name in ("steps", "guidance_scale", "height", "width", "sampler", "num_images", "seed"):
            entry.facts[name] = getattr(request, name)
        if self._log_prompts:
            entry.facts |= {"prompt": request.prompt, "negative_prompt": request.negative_prompt}

    async def idle(self) -> None:
        """Return once no request is open."""
        await self._idle.wait()
