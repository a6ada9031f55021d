"""What goes out over HTTP: JSON, and problems in the v2 error shape."""

import math
from collections.abc import Mapping

import msgspec
from starlette.responses import Response

from predictor.core.problems import Draining, Problem, Unauthenticated

LONGEST_RETRY = 120  # seconds; OpenAI's SDKs give up at a longer Retry-After


def json_reply(body: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A response of JSON; msgspec structs are objects."""
    return Response(msgspec.json.encode(body), status, headers, "application/json")


def problem_body(problem: Problem) -> dict[str, object]:
    """`error` is the v2 protocol's; `code` and `field` are for programs."""
    body: dict[str, object] = {"error": problem.message, "code": problem.code}
    if problem.field is not None:
        body["field"] = problem.field
    if problem.retryable:
        body["retry_after"] = retry_after(problem)
    return body


def problem_headers(problem: Problem) -> dict[str, str]:
    """`Retry-After` and `x-should-retry`, which OpenAI's SDKs follow."""
    headers = {"x-should-retry": str(problem.retryable).lower()}
    if problem.retryable:
        headers["Retry-After"] = str(retry_after(problem))
    if isinstance(problem, Unauthenticated):
        headers["WWW-Authenticate"] = "Bearer"  # RFC 9110, section 11.6.1
    if isinstance(problem, Draining):
        # The next request on this connection belongs to another pod.
        headers["Connection"] = "close"
    return headers


def problem_reply(problem: Problem, status: int | None = None, **more: object) -> Response:
    """The problem with its status and headers; `more` goes into the body."""
    return json_reply(problem_body(problem) | more, status or problem.http, problem_headers(problem))


def retry_after(problem: Problem) -> int:
    """Whole seconds, 1 to 120."""
    return min(LONGEST_RETRY, max(1, math.ceil(problem.retry_after or 1)))
