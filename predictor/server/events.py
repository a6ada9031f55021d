"""Answers of the generate extension: one flat object, or server-sent events on the way to it.

    event: accepted   data: {"id", "prompt_tokens", "negative_prompt_tokens"}
    event: progress   data: {"id", "step", "steps"[, "previews": [base64 of a PNG, …]]}      once per step
    event: done       data: what /generate answers
    event: error      data: {"error", "code"[, "field", "retry_after"]}                      instead of done

Sources: WHATWG HTML, section 9.2 (server-sent events); triton-inference-server/server
`docs/protocol/extension_generate.md`.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Any

from predictor.asgi.access import BUG
from predictor.asgi.events import EventStream, encoded
from predictor.asgi.journal import Entry, log
from predictor.asgi.replies import problem_body
from predictor.core.messages import Accepted
from predictor.core.problems import InternalError, Problem
from predictor.core.tensors import flat
from predictor.server.flights import Progress
from predictor.server.service import Answer

Updates = AsyncGenerator[Accepted | Progress | Answer, None]


async def opened(
    updates: Updates,
    model: str,
    id: str,
    entry: Entry,
    pack: Callable[[Progress], Awaitable[list[str]]],
) -> EventStream:
    """The stream once its request is accepted: until then a problem is still a response with its own status."""
    first = await anext(updates)

    async def events() -> AsyncGenerator[bytes, None]:
        async with aclosing(updates):
            try:
                yield await _event(first, model, id, pack)
                async for update in updates:
                    yield await _event(update, model, id, pack)
            except Problem as problem:
                entry.failed(problem)
                yield encoded("error", problem_body(problem))
            except Exception:
                log.exception("bug", request_id=entry.id)
                bug = InternalError(BUG)
                entry.failed(bug)
                yield encoded("error", problem_body(bug))

    return EventStream(events())


async def _event(update: Accepted | Progress | Answer, model: str, id: str, pack: Any) -> bytes:
    match update:
        case Accepted():
            tokens = {"prompt_tokens": update.prompt_tokens, "negative_prompt_tokens": update.negative_prompt_tokens}
            return encoded("accepted", {"id": id, **tokens})
        case Progress():
            body: dict[str, object] = {"id": id, "step": update.step, "steps": update.steps}
            if update.previews:
                body["previews"] = await pack(update)
            return encoded("progress", body)
        case Answer():
            return encoded("done", flat(model, id, update.tensors, update.parameters))
