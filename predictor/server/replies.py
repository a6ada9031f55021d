"""What goes out over HTTP: answers, and problems in the v2 error shape."""

import math
from collections.abc import Mapping

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from predictor.core.problems import Draining, InvalidRequest, NotFound, Problem
from predictor.server.service import Answer


def json_reply(body: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A response of JSON; msgspec structs are objects."""
    return Response(msgspec.json.encode(body), status, headers, "application/json")


def answer_headers(answer: Answer) -> dict[str, str]:
    """What an answer says beside its body."""
    return {"Server-Timing": answer.server_timing, "x-sdzero-cold-start": str(answer.cold_start).lower()}


def problem_body(problem: Problem) -> dict[str, object]:
    """`error` is the v2 protocol's; `code` and `field` are for programs."""
    body: dict[str, object] = {"error": problem.message, "code": problem.code}
    if problem.field is not None:
        body["field"] = problem.field
    if problem.retryable:
        body["retry_after"] = retry_after(problem)
    return body


def problem_reply(problem: Problem, status: int | None = None, **more: object) -> Response:
    """The problem with its status, `Retry-After` and `x-should-retry`; `more` goes into the body."""
    headers = {"x-should-retry": str(problem.retryable).lower()}
    if problem.retryable:
        headers["Retry-After"] = str(retry_after(problem))
    if isinstance(problem, Draining):
        # The next request on this connection belongs to another pod.
        headers["Connection"] = "close"
    return json_reply(problem_body(problem) | more, status or problem.http, headers)


def retry_after(problem: Problem) -> int:
    """Whole seconds, from 1."""
    return max(1, math.ceil(problem.retry_after or 1))


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
