"""What comes in over HTTP: bodies of a known type and bounded size, from clients that may hang up."""

import asyncio
from collections.abc import Coroutine
from email.message import Message
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request
from starlette.types import Receive

from predictor.core.problems import BodyTooLarge, Cancelled, InvalidRequest, UnsupportedMedia

Result = TypeVar("Result")
# tritonclient.http sends no type, tritonclient.http.aio octet-stream; a plain `curl -d` calls everything a form.
TYPES = ("application/json", "application/octet-stream", "application/x-www-form-urlencoded")
LONGEST_TYPE = 255  # characters; the time to read one grows with the square of its length
HEADER_LENGTH = "Inference-Header-Content-Length"


async def read_body(request: Request, limit: int) -> bytes:
    """The body, read no further than `limit` bytes.

    Raises:
        UnsupportedMedia: a type, character set or encoding that is not read here.
        BodyTooLarge: at the first byte beyond the limit, or before any if the client declares its length.
        Cancelled: the client hung up.
    """
    _check_type(request)
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limit:
        raise BodyTooLarge(f"body: got {declared} bytes; allowed: at most {limit}")
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > limit:
                raise BodyTooLarge(f"body: got more than {limit} bytes; allowed: at most {limit}")
    except ClientDisconnect:
        raise Cancelled("the client hung up before its request was complete") from None
    return bytes(body)


def header_length(request: Request) -> int | None:
    """The length of the JSON in front of binary tensors; None without the extension."""
    given = request.headers.get(HEADER_LENGTH)
    if given is None:
        return None
    if not (given.isascii() and given.isdecimal() and len(given) < 20):
        raise InvalidRequest(f"{HEADER_LENGTH}: got {given[:80]!r}; allowed: the number of bytes of the JSON header")
    return int(given)


async def unless_hung_up(receive: Receive, work: Coroutine[Any, Any, Result]) -> Result:
    """The result of `work`, which is cancelled when the client hangs up; the body must have been read.

    Raises:
        Cancelled: the client hung up.
    """
    task, hangup = asyncio.create_task(work), asyncio.create_task(_hangup(receive))
    try:
        await asyncio.wait({task, hangup}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise Cancelled("the client hung up")
        return task.result()
    finally:
        for one in (task, hangup):
            one.cancel()
        await asyncio.gather(task, hangup, return_exceptions=True)


async def _hangup(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _check_type(request: Request) -> None:
    encoding = request.headers.get("content-encoding", "identity")
    if encoding != "identity":
        raise UnsupportedMedia(f"Content-Encoding: got {encoding[:80]!r}; allowed: identity")
    given = request.headers.get("content-type")
    if given is None:
        return
    if len(given) > LONGEST_TYPE:
        raise UnsupportedMedia(
            f"Content-Type: got {len(given)} characters; allowed: at most {LONGEST_TYPE}, such as {TYPES[0]}"
        )
    parsed = Message()
    parsed["content-type"] = given
    if parsed.get_content_type() not in TYPES:
        raise UnsupportedMedia(f"Content-Type: got {given[:80]!r}; allowed: none, {', '.join(TYPES)}")
    # One that cannot be decoded counts as none in the standard library.
    charset = "utf-8" if parsed.get_param("charset") is None else parsed.get_content_charset("")
    if charset not in ("utf-8", "utf8", "us-ascii"):
        raise UnsupportedMedia(f"Content-Type: got charset {charset[:80]!r}; allowed: utf-8")
