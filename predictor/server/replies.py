"""What goes out over HTTP besides answers: what an answer says in headers, and what the router refuses."""

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from predictor.asgi.replies import problem_reply
from predictor.core.problems import InvalidRequest, NotFound, Problem
from predictor.server.service import Answer


def answer_headers(answer: Answer) -> dict[str, str]:
    """What an answer says beside its body."""
    return {"Server-Timing": answer.server_timing, "x-sdzero-cold-start": str(answer.cold_start).lower()}


async def on_problem(_: Request, error: Exception) -> Response:
    """The application's handler of `Problem`."""
    assert isinstance(error, Problem)
    return problem_reply(error)


async def on_http_exception(request: Request, error: Exception) -> Response:
    """The application's handler of what the router refuses: unknown paths, wrong methods."""
    assert isinstance(error, HTTPException)
    path = f"{request.method} {request.url.path[:200]}"
    if error.status_code == 404:
        return problem_reply(NotFound(f"{path}: no such route; see /v2/models/NAME and /v2/models/NAME/infer"))
    allowed = (error.headers or {}).get("Allow", "")
    reply = problem_reply(
        InvalidRequest(f"{path}: {error.detail}; allowed methods: {allowed}" if allowed else f"{path}: {error.detail}"),
        error.status_code,
    )
    reply.headers.update(error.headers or {})
    return reply
