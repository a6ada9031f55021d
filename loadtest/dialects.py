"""How a request is written and an answer is read: OpenAI's Images API plain and streaming, and v2 REST.

gRPC is not HTTP/1.1 and stands in `grpc.py`.
"""

import base64
import binascii
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from loadtest.answers import Answer, Unreadable, told
from loadtest.plan import Shot
from predictor.edge.sse import Event, EventReader

_LARGEST: Final = 256 * 2**20  # bytes of one event


@dataclass(frozen=True)
class Message:
    """What is sent."""

    path: str
    body: bytes


@dataclass(frozen=True)
class Dialect:
    """`write` makes a request for a model; `read` (a whole body) or `follow` (pieces of a stream) its answer."""

    name: str
    write: Callable[[Shot, str], Message]
    read: Callable[[int, Mapping[str, str], bytes], Answer]
    follow: Callable[[Iterable[bytes]], Answer] | None = None


def _write_openai(shot: Shot, model: str, **more: object) -> Message:
    body: dict[str, object] = {
        "prompt": shot.prompt,
        "model": model,
        "n": shot.images,
        "size": shot.size,
        "seed": shot.seed,
        "response_format": "b64_json",
        **more,
    }
    if shot.steps:
        body["num_inference_steps"] = shot.steps
    return Message("/v1/images/generations", json.dumps(body).encode())


def _write_stream(shot: Shot, model: str) -> Message:
    message = _write_openai(shot, model, stream=True)
    # A stream has no response_format: its pictures are base64 in any case.
    body = json.loads(message.body)
    del body["response_format"]
    return Message(message.path, json.dumps(body).encode())


def _read_openai(status: int, headers: Mapping[str, str], body: bytes) -> Answer:
    if status != 200:
        return told(_problem(status, body), headers)
    document = _object(body)
    files = [(number, _file(one, "b64_json")) for number, one in enumerate(_list(document, "data"))]
    facts = document.get("x_sdzero") or {}
    answer = Answer(status, files, gpu_seconds=facts.get("gpu_seconds"), cold=facts.get("cold_start"))
    return told(answer, headers)


def _follow_openai(pieces: Iterable[bytes]) -> Answer:
    """`image_generation.completed` for each picture; an `error` event ends it otherwise."""
    reader, answer = EventReader(_LARGEST), Answer(200, ended=False)
    for piece in pieces:
        for event in reader.feed(piece):
            _hear(answer, event)
    return answer


def _hear(answer: Answer, event: Event) -> None:
    if event.name == "error":
        problem = _problem(200, event.data)
        answer.code, answer.error, answer.ended = problem.code or "unknown", problem.error, True
    elif event.name == "image_generation.completed":
        document = _object(event.data)
        facts = document.get("x_sdzero") or {}
        # Its seed tells one picture of a request from another; order alone would not show that one came twice.
        number = document.get("x_meta", {}).get("seed", len(answer.files))
        answer.files.append((number, _file(document, "b64_json")))
        answer.ended = True
        answer.gpu_seconds = facts.get("gpu_seconds", answer.gpu_seconds)
        answer.cold = facts.get("cold_start", answer.cold)
        answer.job = facts.get("job", answer.job)
        answer.cache = "hit" if facts.get("cached") else "joined" if facts.get("joined") else answer.cache
        answer.server_timing = facts.get("server_timing", answer.server_timing)


def _write_v2(shot: Shot, model: str) -> Message:
    parameters: dict[str, object] = {"seed": shot.seed, "num_images": shot.images}
    if shot.steps:
        parameters["steps"] = shot.steps
    if shot.size != "auto":
        width, _, height = shot.size.partition("x")
        parameters |= {"width": int(width), "height": int(height)}
    prompt = {"name": "prompt", "shape": [1], "datatype": "BYTES", "data": [shot.prompt]}
    return Message(f"/v2/models/{model}/infer", json.dumps({"inputs": [prompt], "parameters": parameters}).encode())


def _read_v2(status: int, headers: Mapping[str, str], body: bytes) -> Answer:
    if status != 200:
        return told(_problem(status, body), headers)
    document = _object(body)
    nothing: dict[str, Any] = {"data": []}
    images = next((one for one in _list(document, "outputs") if one.get("name") == "image"), nothing)
    files = [(number, decoded(text)) for number, text in enumerate(_list(images, "data"))]
    facts = document.get("parameters") or {}
    answer = Answer(
        status,
        files,
        gpu_seconds=facts.get("gpu_seconds"),
        cold=facts.get("cold_start"),
        server_timing=str(facts.get("server_timing", "")),
        cache="hit" if facts.get("cached") else "",
    )
    return told(answer, headers)


def _problem(status: int, body: bytes) -> Answer:
    """Either dialect's error, or whatever something in between said."""
    try:
        document = json.loads(body)
        error = document.get("error", "")
        nested = error if isinstance(error, dict) else document
        code, words = str(nested.get("code") or ""), str(nested.get("message") or error)
    except (ValueError, AttributeError):
        code, words = "", body[:200].decode("utf-8", "replace")
    return Answer(status, code=code, error=words[:300])


def _object(body: bytes) -> dict[str, Any]:
    try:
        document = json.loads(body)
    except ValueError as error:
        raise Unreadable(f"not JSON: {error}") from None
    if not isinstance(document, dict):
        raise Unreadable(f"got {type(document).__name__}; expected an object")
    return document


def _list(document: dict[str, Any], name: str) -> list[Any]:
    if not isinstance(document.get(name), list):
        raise Unreadable(f"{name}: expected a list")
    return list(document[name])


def _file(document: dict[str, Any], name: str) -> bytes:
    return decoded(document.get(name) if isinstance(document, dict) else None)


def decoded(text: object) -> bytes:
    """A picture's base64 → its file; Unreadable if it is none."""
    if not isinstance(text, str):
        raise Unreadable(f"a picture: got {type(text).__name__}; expected base64")
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise Unreadable(f"a picture that is no base64: {error}") from None


OPENAI: Final = Dialect("openai", _write_openai, _read_openai)
STREAM: Final = Dialect("openai-stream", _write_stream, _read_openai, _follow_openai)
V2: Final = Dialect("v2", _write_v2, _read_v2)
DIALECTS: Final = {dialect.name: dialect for dialect in (OPENAI, STREAM, V2)}
GRPC: Final = "v2-grpc"
