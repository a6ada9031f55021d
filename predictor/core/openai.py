"""OpenAI's Images API ↔ the vocabulary: bodies of requests, answers, events and errors.

field                 what it means here
prompt                required
model                 null or absent is ours; else one of its names, or 404 `model_not_found`
n                     num_images
size                  auto: the model's default size; WIDTHxHEIGHT: exactly that, or refused with what is possible
quality               auto, standard, medium: the model's default steps; low: half of them, rounded down, at least 1;
                      high, hd: twice as many; refused where that is more than the model may do
num_inference_steps   steps; contradicts every quality but auto
output_format         png, webp (without loss), jpeg
output_compression    0 to 100. jpeg: its quality, 100 if absent, and 0 as 1 (libjpeg's own reading).
                      png, webp: only 100, for nothing is lost in them
background            auto, opaque; transparent is refused
style                 vivid, which is OpenAI's default and changes nothing; natural is refused
response_format       if absent url for a model that is called dall-e-…, as from OpenAI's own, else b64_json (the newer
                      ones know nothing else). url: a link that expires
stream                true: server-sent events; only b64_json
partial_images        0 to 3 previews on the way; more than 0 only with stream
moderation            auto, low
safety_identifier     who asks, of the caller's own users; at most 512 characters; goes before `user`, its older name
seed  negative_prompt  guidance_scale  sampler (or scheduler)  truncate_prompt       as everywhere in this service
webhook_url  previews  only in jobs, which in turn have no response_format, stream and partial_images

null means absent. Numbers never come as texts. Any other name is refused. Answers leave `size` out where it is none of
the three that older clients accept, and `quality` always, for what was made is a number of steps; every image's
`x_meta` has the values in force. `usage` counts the tokens of both prompts; a picture is not made of tokens, so
`output_tokens` is 0.

Sources: openai/openai-openapi, `CreateImageRequest`, `ImagesResponse`, `ImageGenPartialImageEvent`,
`ImageGenCompletedEvent`, `Error`; openai/openai-python 3.54, `types/image_generate_params.py`.
"""

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import msgspec

from predictor.core.account import megapixel_steps
from predictor.core.jobs import Job, Result
from predictor.core.problems import InvalidField, ModerationBlocked, NotFound, Problem, shown
from predictor.core.request import Capabilities
from predictor.core.strict_json import parsed
from predictor.core.timeline import server_timing

SIZE = re.compile(r"([1-9][0-9]{0,5})x([1-9][0-9]{0,5})")
OLD_SIZES = ("1024x1024", "1024x1536", "1536x1024")  # all that ImagesResponse knew before its `size` became a text
MAX_IDENTIFIER = 512  # characters

# The client's name → ours, of fields that `resolve` reads as they come.
PLAIN = {
    "prompt": "prompt",
    "n": "num_images",
    "num_inference_steps": "steps",
    "seed": "seed",
    "negative_prompt": "negative_prompt",
    "guidance_scale": "guidance_scale",
    "sampler": "sampler",
    "scheduler": "sampler",
    "truncate_prompt": "truncate_prompt",
}
THEIRS = {
    "num_images": "n",
    "steps": "num_inference_steps",
    "height": "size",
    "width": "size",
    "height and width": "size",
    "image_format": "output_format",
    "image_quality": "output_compression",
}
ALWAYS = (
    "model",
    "size",
    "quality",
    "output_format",
    "output_compression",
    "background",
    "style",
    "moderation",
    "user",
    "safety_identifier",
)
OF_CONNECTIONS = ("response_format", "stream", "partial_images")
OF_JOBS = ("webhook_url", "previews")

TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}

_object = msgspec.json.Decoder(dict[str, Any])


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """A decoded request, of which `fields` makes one that can be resolved, and how its caller wants to be answered."""

    given: dict[str, Any]  # by the client's names; null is absent
    response_format: Literal["url", "b64_json"] = "b64_json"
    stream: bool = False
    partial_images: int = 0
    previews: bool = False  # of a job: whether its events will have them
    user: str | None = None
    moderation: Literal["auto", "low"] = "auto"
    webhook_url: str | None = None


def decode(body: bytes, names: Sequence[str], *, job: bool = False) -> Wanted:
    """Read the body of an images request, or of a job's, for a model of these `names`, whatever it can do.

    Raises:
        InvalidRequest: the bytes are no JSON object.
        InvalidField: by the name that the client gave it.
        NotFound: another model.
    """
    given: dict[str, Any] = parsed(_object, body)
    _refuse_others(given, (*PLAIN, *ALWAYS, *(OF_JOBS if job else OF_CONNECTIONS)))
    given = {name: value for name, value in given.items() if value is not None}
    _check_model(given, names)
    _choice(given, "background", ("auto", "opaque"), "auto or opaque; this model draws no transparency")
    _choice(given, "style", ("vivid",), "vivid, which changes nothing; describe another style in the prompt")
    if "scheduler" in given and "sampler" in given:
        raise InvalidField.because("scheduler", "got sampler as well, its other name", "one of them")
    stream = _of_kind(given, "stream", bool, "true or false") or False
    identifiers = [_identifier(given, name) for name in ("safety_identifier", "user")]
    return Wanted(
        given=given,
        response_format=_response_format(given, stream),
        stream=stream,
        partial_images=_partial_images(given, stream),
        previews=_of_kind(given, "previews", bool, "true or false") or False,
        user=next(filter(None, identifiers), None),
        moderation=_choice(given, "moderation", ("auto", "low")) or "auto",
        webhook_url=_of_kind(given, "webhook_url", str, "an address"),
    )


def fields(wanted: Wanted, capabilities: Capabilities) -> dict[str, object]:
    """The request for `core.request.resolve`, of a model that can do so much.

    Raises:
        InvalidField: by the name that the client gave it.
    """
    given = wanted.given
    taken = [name for name, ours in PLAIN.items() if ours in capabilities.parameters]
    _refuse_others([name for name in given if name in PLAIN], taken)
    if capabilities.samplers:
        _choice(given, "scheduler", capabilities.samplers)
    plain = {PLAIN[name]: value for name, value in given.items() if name in PLAIN}
    return plain | _size(given, capabilities) | _steps(given, capabilities) | _encoding(given)


def renamed(problem: InvalidField) -> InvalidField:
    """A problem that `resolve` found, told in the names of this API."""
    ours = problem.field or ""
    theirs = THEIRS.get(ours, ours)
    rest = problem.message.removeprefix(f"{ours}:")
    if ours == theirs or rest == problem.message:
        return problem
    side = f" {ours}" if ours in ("height", "width") else ""
    return InvalidField(f"{theirs}:{side}{rest}", field=theirs, retry_after=problem.retry_after)


def answer(job: Job, data: Sequence[Mapping[str, str]]) -> dict[str, Any]:
    """ImagesResponse of a job that is done; `data` has `b64_json` or `url` of each image, in their order."""
    result = _result(job)
    body: dict[str, Any] = {
        "created": int(_finished(job)),
        "data": [{**one, "x_meta": _meta(job, image.seed)} for one, image in zip(data, result.images, strict=True)],
        "background": "opaque",
        "output_format": job.encoding.format,
        "usage": _usage(result),
        "x_sdzero": _facts(job, result),
    }
    if (size := _dimensions(job)) in OLD_SIZES:
        body["size"] = size
    return body


def partial_event(job: Job, b64_json: str, index: int) -> dict[str, Any]:
    """ImageGenPartialImageEvent; `index` counts from 0."""
    return {
        **_event(job, "image_generation.partial_image", b64_json, job.created),
        "partial_image_index": index,
    }


def completed_event(job: Job, b64_json: str, number: int) -> dict[str, Any]:
    """ImageGenCompletedEvent of image `number`, from 0, of a job that is done."""
    result = _result(job)
    return {
        **_event(job, "image_generation.completed", b64_json, _finished(job)),
        "usage": _usage(result),
        "x_meta": _meta(job, result.images[number].seed),
        "x_sdzero": _facts(job, result),
    }


def error(problem: Problem) -> tuple[int, dict[str, Any]]:
    """Status and body of a problem, with all four keys that OpenAI's clients read."""
    code, kind = problem.code, TYPES.get(problem.http)
    if isinstance(problem, NotFound) and problem.field == "model":
        code = "model_not_found"
    if isinstance(problem, ModerationBlocked):
        kind = "image_generation_user_error"
    kind = kind or ("server_error" if problem.http >= 500 else "invalid_request_error")
    return problem.http, {"error": {"message": problem.message, "type": kind, "param": problem.field, "code": code}}


def models(names: Sequence[str], created: int) -> dict[str, Any]:
    """The list of models: one, by each of its names; `created` in seconds since the epoch."""
    return {"object": "list", "data": [model(name, created) for name in names]}


def model(name: str, created: int) -> dict[str, Any]:
    """One model; `created` in seconds since the epoch."""
    return {"id": name, "object": "model", "created": created, "owned_by": "sdzero"}


def timing(result: Result) -> str:
    """The `Server-Timing` header of a result."""
    stages = [("wake", result.waited)] if result.waited else []
    return server_timing([*stages, *result.timing.items()])


def _refuse_others(given: Iterable[str], allowed: Sequence[str]) -> None:
    for name in given:
        if name not in allowed:
            close = difflib.get_close_matches(name[:64], allowed, 1)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise InvalidField.because(name, f"no such field{hint}", ", ".join(allowed))


def _check_model(given: Mapping[str, Any], names: Sequence[str]) -> None:
    wanted = _of_kind(given, "model", str, ", ".join(names))
    if wanted is not None and wanted not in names:
        raise NotFound(f"model: got {shown(wanted)}; allowed: {', '.join(names)}", field="model")


def _of_kind(given: Mapping[str, Any], name: str, kind: type, allowed: str) -> Any:
    value = given.get(name)
    if value is not None and type(value) is not kind:
        raise InvalidField.of(name, value, allowed)
    return value


def _choice(given: Mapping[str, Any], name: str, choices: Sequence[str], allowed: str = "") -> Any:
    value = given.get(name)
    if value is not None and value not in choices:
        raise InvalidField.of(name, value, allowed or ", ".join(choices))
    return value


def _between(given: Mapping[str, Any], name: str, low: int, high: int) -> int | None:
    value: int | None = _of_kind(given, name, int, f"a whole number from {low} to {high}")
    if value is not None and not low <= value <= high:
        raise InvalidField.of(name, value, f"{low} to {high}")
    return value


def _identifier(given: Mapping[str, Any], name: str) -> str | None:
    value: str | None = _of_kind(given, name, str, "a text")
    if value is not None and "\0" in value:
        raise InvalidField.because(name, "got a NUL character", "text without it")  # PostgreSQL stores none
    if value is not None and len(value) > MAX_IDENTIFIER:
        raise InvalidField.because(name, f"got {len(value)} characters", f"at most {MAX_IDENTIFIER}")
    return value


def _size(given: Mapping[str, Any], capabilities: Capabilities) -> dict[str, object]:
    size = given.get("size", "auto")
    if size == "auto":
        return {}
    match = SIZE.fullmatch(size) if isinstance(size, str) else None
    if match:
        width, height = int(match[1]), int(match[2])
        if _possible(height, width, capabilities):
            return {"height": height, "width": width}
    if capabilities.sizes:
        allowed = f"auto, {', '.join(f'{width}x{height}' for height, width in capabilities.sizes)}"
    else:
        allowed = (
            f"auto, or WIDTHxHEIGHT in multiples of {capabilities.size_multiple} from {capabilities.min_side}, "
            f"with at most {capabilities.max_pixels} pixels in all"
        )
    raise InvalidField.of("size", size, allowed)


def _possible(height: int, width: int, capabilities: Capabilities) -> bool:
    if capabilities.sizes:
        return (height, width) in capabilities.sizes
    sides_fit = all(
        side >= capabilities.min_side and side % capabilities.size_multiple == 0 for side in (height, width)
    )
    return sides_fit and height * width <= capabilities.max_pixels


def _steps(given: Mapping[str, Any], capabilities: Capabilities) -> dict[str, object]:
    quality = _choice(given, "quality", ("auto", "standard", "low", "medium", "high", "hd")) or "auto"
    if quality != "auto" and "num_inference_steps" in given:
        raise InvalidField.because(
            "quality", f"got {quality} and num_inference_steps, which contradict each other", "one of them"
        )
    if quality == "low":
        return {"steps": max(1, capabilities.default_steps // 2)}
    if quality not in ("high", "hd"):
        return {}
    steps = 2 * capabilities.default_steps
    if steps > capabilities.max_steps:
        came = f"got {quality}, which is {steps} steps of the {capabilities.max_steps} that this model may do"
        raise InvalidField.because("quality", came, "auto, standard, low, medium")
    return {"steps": steps}


def _encoding(given: Mapping[str, Any]) -> dict[str, object]:
    form = _choice(given, "output_format", ("png", "webp", "jpeg")) or "png"
    compression = _between(given, "output_compression", 0, 100)
    if compression is None:
        compression = 100
    if form == "jpeg":
        return {"image_format": form, "image_quality": max(1, compression)}
    if compression != 100:
        raise InvalidField.of("output_compression", compression, f"100 with output_format {form}, which loses nothing")
    return {"image_format": form} if "output_format" in given else {}


def _response_format(given: Mapping[str, Any], stream: bool) -> Any:
    old = str(given.get("model", "")).startswith("dall-e-") and not stream
    wanted = _choice(given, "response_format", ("url", "b64_json")) or ("url" if old else "b64_json")
    if stream and wanted == "url":
        raise InvalidField.of("response_format", wanted, "b64_json with stream, whose events have no links")
    return wanted


def _partial_images(given: Mapping[str, Any], stream: bool) -> int:
    wanted = _between(given, "partial_images", 0, 3) or 0
    if wanted and not stream:
        raise InvalidField.of("partial_images", wanted, "0 without stream; nobody would see them")
    return wanted


def _result(job: Job) -> Result:
    assert job.generation.result is not None
    return job.generation.result


def _finished(job: Job) -> float:
    """When the images were made; a cached job's are older than the job."""
    return job.generation.finished or job.finished or job.created


def _dimensions(job: Job) -> str:
    return f"{job.generation.request.width}x{job.generation.request.height}"


def _event(job: Job, kind: str, b64_json: str, created_at: float) -> dict[str, Any]:
    return {
        "type": kind,
        "b64_json": b64_json,
        "background": "opaque",
        "created_at": int(created_at),
        "output_format": job.encoding.format,
        "quality": "auto",  # required, and the only one of its values that promises no number of steps
        "size": _dimensions(job),
    }


def _meta(job: Job, seed: int) -> dict[str, Any]:
    request = job.generation.request
    return {
        "seed": seed,
        "negative_prompt": request.negative_prompt,
        "num_inference_steps": request.steps,
        "guidance_scale": request.guidance_scale,
        "sampler": request.sampler,
        "size": _dimensions(job),
        "truncate_prompt": request.truncate_prompt,
    }


def _usage(result: Result) -> dict[str, Any]:
    tokens = result.prompt_tokens + result.negative_prompt_tokens
    return {
        "input_tokens": tokens,
        "input_tokens_details": {"text_tokens": tokens, "image_tokens": 0},
        "output_tokens": 0,
        "total_tokens": tokens,
    }


def _facts(job: Job, result: Result) -> dict[str, Any]:
    paid = not job.cached and not job.joined
    return {
        "job": job.id,
        "cached": job.cached,
        "joined": job.joined,
        "cold_start": result.cold_start and not job.cached,
        "fingerprint": job.generation.fingerprint,
        "revision": result.revision,
        "gpu_seconds": result.gpu_seconds if paid else 0.0,
        "megapixel_steps": megapixel_steps(job.generation.request) if paid else 0.0,
    }
