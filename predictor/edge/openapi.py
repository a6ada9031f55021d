"""The OpenAPI 3.1 document of everything that the edge answers, for client generators and for tests.

Source: https://spec.openapis.org/oas/v3.1.1.html; what goes in and out is in `schemas.py`.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from predictor import __version__
from predictor.core.problems import (
    PROBLEMS,
    BodyTooLarge,
    Cancelled,
    Closed,
    Forbidden,
    InternalError,
    InvalidRequest,
    NotFound,
    Problem,
    QuotaExceeded,
    StoreUnavailable,
    Unauthenticated,
    UnsupportedMedia,
)
from predictor.core.request import Capabilities
from predictor.edge.schemas import ID, NUMBER, TEXT, Schema, closed, components, listed, nullable, one_of, ref

Dialect = Literal["openai", "v2"]
Problems = Iterable[type[Problem]]

ASKED: Problems = (Unauthenticated, Forbidden, QuotaExceeded, Cancelled, StoreUnavailable, InternalError)  # with a key
READ = (*ASKED, InvalidRequest)
SENT = (*READ, BodyTooLarge, UnsupportedMedia)
GENERATED = tuple(PROBLEMS.values())
UNDER_WAY = ("waking", "progress")  # events of a generation
FREE: Schema = {"type": "object"}
BINARY = "application/octet-stream"

HEADERS: dict[str, Schema] = {
    "x-request-id": {"description": "of this answer in the log; the request's own, if it sent one", "required": True},
    "x-should-retry": {"description": "true or false, which OpenAI's SDKs follow", "required": True},
    "Retry-After": {"description": "whole seconds, at most 120", "required": True},
    "Location": {"description": "where the job is", "required": True},
}
PARAMETERS: dict[str, Schema] = {
    "Idempotency-Key": {
        "in": "header",
        "description": "the same key with the same body leads to the same job",
        "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[ -~]+$"},
    },
    "Prefer": {
        "in": "header",
        "description": "respond-async: a job at once; wait=N: after N seconds, unless the pictures are done (RFC 7240)",
        "schema": TEXT,
    },
    "X-Request-Deadline": {
        "in": "header",
        "description": "a moment, ISO 8601 with its offset or seconds since the epoch, after which nobody waits",
        "schema": TEXT,
    },
    "Last-Event-ID": {"in": "header", "description": "of the last event that was seen", "schema": TEXT},
    "Inference-Header-Content-Length": {
        "in": "header",
        "description": "bytes of JSON in front of binary tensors",
        "schema": {"type": "string", "pattern": "^[0-9]{1,19}$"},
    },
    "id": {"in": "path", "required": True, "description": "a job's", "schema": {"type": "string", "pattern": ID}},
    "version": {"in": "path", "required": True, "description": "models here have none", "schema": TEXT},
    "rest": {"in": "path", "required": True, "description": "any path", "schema": TEXT},
    "file": {"in": "path", "required": True, "description": "of the page", "schema": TEXT},
    "name": {
        "in": "path",
        "required": True,
        "description": "of an image",
        "schema": {"type": "string", "pattern": r"^[0-9a-f]{48}\.(png|webp|jpeg)$"},
    },
    "expires": {"in": "query", "required": True, "description": "seconds since the epoch", "schema": TEXT},
    "signature": {"in": "query", "required": True, "description": "as in the link", "schema": TEXT},
    "limit": {
        "in": "query",
        "description": "most that are listed",
        "schema": {"type": "integer", "minimum": 1, "maximum": 1000},
    },
    "after": {"in": "query", "description": "a job's id; those that follow it are listed", "schema": TEXT},
    "state": {"in": "query", "schema": one_of("active", "done", "failed", "cancelled")},
    "previews": {"in": "query", "schema": one_of("true", "false")},
    "since": {"in": "query", "description": "seconds since the epoch, or an ISO 8601 moment", "schema": TEXT},
    "until": {"in": "query", "description": "likewise; before it", "schema": TEXT},
}


def document(names: Sequence[str], capabilities: Capabilities | None, public_url: str = "") -> dict[str, Any]:
    """The document of an edge whose model has these `names`, its own first.

    Args:
        names: of the model.
        capabilities: the model's limits, where anybody has told them.
        public_url: where clients reach the edge; by default, where they found this document.
    """
    model = {"in": "path", "required": True, "description": "the model's name", "schema": one_of(*names)}
    named = {name: {"name": name, **parameter} for name, parameter in (PARAMETERS | {"model": model}).items()}
    return {
        "openapi": "3.1.1",
        "info": {
            "title": "sdzero",
            "version": __version__,
            "summary": "Stable Diffusion behind OpenAI's Images API, the Open Inference Protocol (v2), and jobs",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": public_url or "/"}],
        "security": [{"bearer": []}, {"key": []}],
        "paths": {**_openai(), **_jobs(), **_account(), **_v2(), **_public()},
        "components": {
            "schemas": components(names, capabilities),
            "parameters": named,
            "headers": {name: {"schema": TEXT, **header} for name, header in HEADERS.items()},
            "responses": {**_problems("openai"), **_problems("v2")},
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
            },
        },
    }


def _openai() -> dict[str, Any]:
    images = _answer(
        "the pictures",
        ref("ImagesResponse"),
        events=("image_generation.partial_image", "image_generation.completed", "error"),
    )
    accepted = _answer("a job, which the client preferred", ref("Job"), headers=["Location"])
    models = _answer("one a name", listed(ref("Model")))
    return {
        "/v1/images/generations": {
            "post": _operation(
                "Make pictures",
                {200: images, 202: accepted},
                GENERATED,
                ["Prefer", "X-Request-Deadline", "Idempotency-Key"],
                _body("ImagesRequest"),
            )
        },
        "/v1/models": {"get": _operation("List the model's names", {200: models}, READ)},
        "/v1/models/{model}": {
            "get": _operation("Describe the model", {200: _answer("it", ref("Model"))}, (*READ, NotFound), ["model"])
        },
    }


def _jobs() -> dict[str, Any]:
    job, accepted = _answer("the job", ref("Job")), _answer("the job", ref("Job"), headers=["Location"])
    page = _answer("a page", listed(ref("Job"), has_more={"type": "boolean"}, after=nullable(TEXT)))
    events = _answer("until its end", events=("queued", *UNDER_WAY, "done", "failed", "cancelled"))
    manifest = _answer("all of it", ref("Manifest"))
    found = (*READ, NotFound)
    return {
        "/v1/jobs": {
            "get": _operation("List jobs, newest first", {200: page}, READ, ["limit", "after", "state"]),
            "post": _operation(
                "Ask for pictures without waiting for them",
                {202: accepted},
                GENERATED,
                ["X-Request-Deadline", "Idempotency-Key"],
                _body("JobRequest"),
            ),
        },
        "/v1/jobs/{id}": {
            "get": _operation("Look at a job", {200: job}, found, ["id"]),
            "delete": _operation("Cancel a job, on the GPU as well", {200: job}, (*SENT, NotFound), ["id"]),
        },
        "/v1/jobs/{id}/events": {
            "get": _operation(
                "Follow a job",
                {200: events, 204: _answer("the client has seen its end")},
                found,
                ["id", "previews", "Last-Event-ID"],
            )
        },
        "/v1/jobs/{id}/manifest": {
            "get": _operation("What makes its pictures again", {200: manifest}, found, ["id"]),
        },
        "/v1/jobs/{id}/replay": {
            "post": _operation("Make its pictures again, past the cache", {202: accepted}, GENERATED, ["id"]),
        },
    }


def _account() -> dict[str, Any]:
    usage = closed(object=one_of("list"), since=NUMBER, until=NUMBER, data={"type": "array", "items": ref("Usage")})
    secret = closed(secret={"type": "string", "pattern": "^whsec_"})
    lines, starts = listed(ref("Entry")), listed(ref("ColdStart"))
    return {
        "/v1/usage": {
            "get": _operation("What the key has spent", {200: _answer("sums", usage)}, READ, ["since", "until"]),
        },
        "/v1/audit": {
            "get": _operation("The audit log, for admins", {200: _answer("lines", lines)}, READ, ["since", "limit"]),
        },
        "/v1/cold-starts": {
            "get": _operation("The latest cold starts", {200: _answer("each by phase", starts)}, READ, ["limit"]),
        },
        "/v1/webhook-secret": {
            "get": _operation("What signs the tenant's webhooks", {200: _answer("it", secret)}, READ),
        },
    }


def _v2() -> dict[str, Any]:
    shut = _operation("Closed: there is one model", {}, (*SENT, Closed, NotFound), ["rest"], dialect="v2")
    paths: dict[str, Any] = {
        "/v2": {"get": _open("Name, version and extensions", FREE)},
        "/v2/health/live": {"get": _open("The edge runs", FREE)},
        "/v2/health/ready": {"get": _open("The edge takes requests", FREE)},
        "/v2/repository/{rest}": {"get": shut, "post": shut},
    }
    model = "/v2/models/{model}"
    return paths | _v2_model(model, ["model"]) | _v2_model(f"{model}/versions/{{version}}", ["model", "version"])


def _v2_model(path: str, named: list[str]) -> dict[str, Any]:
    tensors = _answer("tensors", ref("InferResponse"), also=[BINARY])
    flat = _answer("all outputs but raw pixels", ref("GenerateResponse"))
    events = _answer("until its end", events=("queued", *UNDER_WAY, "done", "error"))

    def post(summary: str, answer: Schema, body: Schema, *more: str) -> dict[str, Any]:
        headers = ["X-Request-Deadline", "Idempotency-Key", *more]
        return {"post": _operation(summary, {200: answer}, GENERATED, [*named, *headers], body, dialect="v2")}

    metadata = _answer("its tensors and limits", ref("ModelMetadata"))
    return {
        path: {"get": _operation("Describe the model", {200: metadata}, GENERATED, named, dialect="v2")},
        f"{path}/ready": {"get": _open("A model that sleeps is ready", FREE, named, [NotFound], "v2")},
        f"{path}/infer": post(
            "v2 inference", tensors, _body("InferRequest", BINARY), "Inference-Header-Content-Length"
        ),
        f"{path}/generate": post("Triton's generate extension", flat, _body("GenerateRequest")),
        f"{path}/generate_stream": post("The same as events", events, _body("GenerateStreamRequest")),
    }


def _public() -> dict[str, Any]:
    image = _operation(
        "A picture, for whoever has its link",
        {200: _answer("it", also=["image/png", "image/webp", "image/jpeg"]), 304: _answer("the client has it")},
        (Forbidden, NotFound, StoreUnavailable, InternalError),
        ["name", "expires", "signature"],
    )
    page = _operation("The web page", {200: _answer("it", also=["text/html"]), 304: _answer("the client has it")}, ())
    parts = _answer("it", also=["text/css", "text/javascript", "image/svg+xml"])
    part = _operation("A part of it", {200: parts, 304: _answer("the client has it")}, (NotFound,), ["file"])
    return {
        "/v1/files/{name}": {"get": image | {"security": []}},
        "/": {"get": page | {"security": []}},
        "/page/{file}": {"get": part | {"security": []}},
        "/openapi.json": {"get": _open("This document", FREE)},
        "/healthz": {"get": _open("The process runs", FREE)},
        "/readyz": {"get": _open("The database answers", FREE, problems=[StoreUnavailable])},
    }


def _operation(
    summary: str,
    answers: Mapping[int, Schema],
    problems: Problems,
    parameters: Sequence[str] = (),
    body: Schema | None = None,
    *,
    dialect: Dialect = "openai",
) -> dict[str, Any]:
    responses = {str(status): answer for status, answer in answers.items()}
    for status in sorted({kind.http for kind in problems}):
        responses[str(status)] = {"$ref": f"#/components/responses/{dialect}-{status}"}
    found: dict[str, Any] = {"summary": summary, "responses": responses}
    if parameters:
        found["parameters"] = [{"$ref": f"#/components/parameters/{name}"} for name in parameters]
    if body is not None:
        found["requestBody"] = body
    return found


def _open(
    summary: str,
    schema: Schema,
    parameters: Sequence[str] = (),
    problems: Problems = (),
    dialect: Dialect = "openai",
) -> dict[str, Any]:
    """An operation that asks for no key."""
    answers = {200: _answer("it", schema)}
    return _operation(summary, answers, (*problems, InternalError), parameters, dialect=dialect) | {"security": []}


def _body(schema: str, *others: str) -> Schema:
    return {
        "required": True,
        "content": {"application/json": {"schema": ref(schema)}, **{other: {} for other in others}},
    }


def _answer(
    description: str,
    schema: Schema | None = None,
    *,
    headers: Sequence[str] = (),
    events: Sequence[str] = (),
    also: Sequence[str] = (),
) -> Schema:
    """A response: JSON of a schema, server-sent events of these names, other types of content."""
    content: dict[str, Schema] = {other: {} for other in also}
    if schema is not None:
        content["application/json"] = {"schema": schema}
    if events:
        json = {"type": "string", "contentMediaType": "application/json"}
        content["text/event-stream"] = {"schema": closed({"id": TEXT}, event=one_of(*events), data=json)}
    named = {name: {"$ref": f"#/components/headers/{name}"} for name in ("x-request-id", *headers)}
    return {"description": description, "headers": named} | ({"content": content} if content else {})


def _problems(dialect: Dialect) -> dict[str, Schema]:
    """One response for each status, with the codes that it may have and what they mean."""
    found = {}
    for status in sorted({kind.http for kind in PROBLEMS.values()}):
        kinds = [kind for kind in PROBLEMS.values() if kind.http == status]
        codes = one_of(*(kind.code for kind in kinds), *(["model_not_found"] if status == 404 else []))
        headers = ["x-should-retry", *(["Retry-After"] if all(kind.retryable for kind in kinds) else [])]
        schema: Schema = {"allOf": [ref("V2Error"), {"properties": {"code": codes}}]}
        if dialect == "openai":
            schema = {"allOf": [ref("Error"), {"properties": {"error": {"properties": {"code": codes}}}}]}
        meaning = "\n".join(f"- `{kind.code}`: {kind.__doc__}" for kind in kinds)
        found[f"{dialect}-{status}"] = _answer(meaning, schema, headers=headers)
    return found
