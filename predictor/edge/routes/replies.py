"""Problems in OpenAI's error shape."""

from starlette.responses import Response

from predictor.asgi.replies import json_reply, problem_headers
from predictor.core import openai
from predictor.core.problems import Problem


def openai_reply(problem: Problem) -> Response:
    """The problem with its status, `Retry-After` and `x-should-retry`."""
    status, body = openai.error(problem)
    return json_reply(body, status, problem_headers(problem))
