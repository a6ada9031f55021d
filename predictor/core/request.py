"""What a caller may ask for, what a loaded model allows, and the checks between the two.

Every dialect (v2 tensors, Triton's generate, later OpenAI's images) ends in the same flat mapping of field names to
plain values; `resolve` turns that into a `GenerationRequest` in which nothing is left open, or raises `InvalidField`.
"""

import ctypes
import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from predictor.core.problems import InvalidField

# The largest integer that survives every JSON client (RFC 8259, section 6), less room for `seed + i` of the last image.
MAX_SEED = 2**53 - 1 - 1024

ImageFormat = Literal["png", "webp", "jpeg"]


class Parameter(msgspec.Struct, frozen=True):
    """One input of a request: its plain type, its v2 datatype, and a sentence for the model's metadata."""

    name: str
    kind: type[str] | type[int] | type[float] | type[bool]
    datatype: str
    meaning: str


PARAMETERS: dict[str, Parameter] = {
    parameter.name: parameter
    for parameter in (
        Parameter("prompt", str, "BYTES", "what the picture should show; UTF-8"),
        Parameter("negative_prompt", str, "BYTES", "what it should not show; UTF-8"),
        Parameter("seed", int, "INT64", "fixes the noise; image i of a request uses seed + i; drawn if absent"),
        Parameter("steps", int, "INT32", "denoising steps"),
        Parameter(
            "guidance_scale", float, "FP32", "weight of the prompt against the negative prompt; 1 switches it off"
        ),
        Parameter("height", int, "INT32", "pixels"),
        Parameter("width", int, "INT32", "pixels"),
        Parameter("sampler", str, "BYTES", "how noise is removed from step to step"),
        Parameter("num_images", int, "INT32", "pictures to make, with seeds seed, seed + 1, …"),
        Parameter("truncate_prompt", bool, "BOOL", "cut a prompt that is too long instead of refusing it"),
        Parameter("image_format", str, "BYTES", "encoding of the output `image`: png, webp (lossless) or jpeg"),
        Parameter("image_quality", int, "INT32", "jpeg only: 1 (small) to 100 (faithful)"),
    )
}


class FixedToken(msgspec.Struct, frozen=True):
    """A text that is one token wherever it stands; found before words are, in the text as it came or `normalized`."""

    content: str
    normalized: bool


class TokenRules(msgspec.Struct, frozen=True):
    """How one CLIP tokenizer splits text: enough to count tokens (`core/clip_tokens.py`), not to tell their ids."""

    limit: int  # tokens of one text that the model reads, without begin and end
    merges: str | None  # a line "left right" each, those that go first at the top; None: as the tokenizer before has
    added: tuple[FixedToken, ...]


class Capabilities(msgspec.Struct, frozen=True, kw_only=True):
    """What one loaded model can do, as its engine found it: limits, defaults, and who it is."""

    architecture: str  # the pipeline's class name in model_index.json
    revision: str  # hash of the model's configuration and weight headers
    runtime: str  # eager, pipeline
    device: str
    dtype: str
    parameters: tuple[str, ...]  # names in PARAMETERS that this model takes
    samplers: tuple[str, ...]  # empty: nobody has told
    default_sampler: str
    default_steps: int
    max_steps: int
    default_guidance_scale: float
    max_guidance_scale: float
    default_height: int  # pixels
    default_width: int
    min_side: int  # pixels
    max_pixels: int  # height × width of one image
    size_multiple: int  # pixels
    max_images: int
    max_prompt_bytes: int
    max_prompt_tokens: int | None  # None: the pipeline has its own rule
    previews: bool
    sizes: tuple[tuple[int, int], ...] = ()  # (height, width) that were compiled; empty: any within the bounds
    tokenizers: tuple[TokenRules, ...] = ()  # in the engine's order; empty: only the engine can count


# What some predictor or other could do: its settings' largest values, and the defaults that cost least. Whatever this
# does not allow is refused before anybody has told what the model at hand allows.
ANY_MODEL = Capabilities(
    architecture="",
    revision="",
    runtime="",
    device="",
    dtype="",
    parameters=tuple(PARAMETERS),
    samplers=(),
    default_sampler="",
    default_steps=1,
    max_steps=1000,
    default_guidance_scale=1.0,
    max_guidance_scale=50.0,
    default_height=1,
    default_width=1,
    min_side=1,
    max_pixels=2**26,
    size_multiple=1,
    max_images=64,
    max_prompt_bytes=2**20,
    max_prompt_tokens=None,
    previews=True,
)


class GenerationRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that fixes the pixels, besides the model's revision. No field is open."""

    prompt: str
    negative_prompt: str
    seed: int
    steps: int
    guidance_scale: float
    height: int
    width: int
    sampler: str
    num_images: int
    truncate_prompt: bool

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seed of each image."""
        return tuple(range(self.seed, self.seed + self.num_images))


class ImageEncoding(msgspec.Struct, frozen=True):
    """How the caller wants the pictures packed; it does not change the pixels that are made."""

    format: ImageFormat = "png"
    quality: Annotated[int, Meta(ge=1, le=100)] = 90


def single(value: float) -> float:
    """The shortest decimal that is `value` in single precision: 7.3 for the FP32 tensor's 7.300000190734863.

    The engine computes in single precision at most; without this, one number would have several spellings, and one
    picture several fingerprints. What single precision cannot hold stays as it is.
    """
    rounded = ctypes.c_float(value).value
    if not math.isfinite(rounded):
        return value
    spellings = (float(f"{rounded:.{digits}g}") for digits in range(1, 10))
    return next(short for short in spellings if ctypes.c_float(short).value == rounded)


def resolve(
    fields: Mapping[str, object], capabilities: Capabilities, fresh_seed: int
) -> tuple[GenerationRequest, ImageEncoding]:
    """The request that `fields` ask for, its gaps filled with the model's defaults and `fresh_seed`.

    Raises:
        InvalidField: naming the field, what came and what is allowed.
    """
    for name, value in fields.items():
        _check_kind(name, value, capabilities)
    given: Mapping[str, Any] = fields
    if "prompt" not in given:
        raise InvalidField.because("prompt", "missing", "a text that is not empty")
    request = GenerationRequest(
        prompt=_text("prompt", given["prompt"], capabilities),
        negative_prompt=_text("negative_prompt", given.get("negative_prompt", ""), capabilities),
        seed=_between("seed", given.get("seed", fresh_seed), 0, MAX_SEED),
        steps=_between("steps", given.get("steps", capabilities.default_steps), 1, capabilities.max_steps),
        guidance_scale=_guidance(given.get("guidance_scale", capabilities.default_guidance_scale), capabilities),
        height=_side("height", given.get("height", capabilities.default_height), capabilities),
        width=_side("width", given.get("width", capabilities.default_width), capabilities),
        sampler=_sampler(given.get("sampler", capabilities.default_sampler), capabilities.samplers),
        num_images=_between("num_images", given.get("num_images", 1), 1, capabilities.max_images),
        truncate_prompt=given.get("truncate_prompt", False),
    )
    size = f"got {request.height} x {request.width}"
    if capabilities.sizes and (request.height, request.width) not in capabilities.sizes:
        allowed = ", ".join(f"{height} x {width}" for height, width in capabilities.sizes)
        raise InvalidField.because("height and width", size, f"{allowed}, the sizes that this model was compiled for")
    if request.height * request.width > capabilities.max_pixels:
        raise InvalidField.because("height and width", size, f"at most {capabilities.max_pixels} pixels in all")
    return request, _encoding(given)


def too_many_tokens(name: str, used: int | str, limit: int) -> InvalidField:
    """The problem of a prompt that is longer than the model reads, the same from whoever has counted."""
    return InvalidField(f"{name}: got {used} tokens; allowed: at most {limit}, or set truncate_prompt", field=name)


def _check_kind(name: str, value: object, capabilities: Capabilities) -> None:
    parameter = PARAMETERS.get(name)
    if parameter is None or name not in capabilities.parameters:
        raise InvalidField.because(name, "no such parameter", ", ".join(capabilities.parameters))
    # bool is an int in Python, and an int is a fine float; nothing else is converted.
    if type(value) is not parameter.kind and (parameter.kind, type(value)) != (float, int):
        kind = {str: "a text", int: "a whole number", float: "a number", bool: "true or false"}[parameter.kind]
        raise InvalidField.of(name, value, kind)


def _text(name: str, value: str, capabilities: Capabilities) -> str:
    size = len(value.encode("utf-8", "surrogatepass"))
    if size > capabilities.max_prompt_bytes:
        raise InvalidField.because(name, f"got {size} bytes", f"at most {capabilities.max_prompt_bytes}")
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise InvalidField.because(name, "got a lone surrogate", "text that UTF-8 can hold")
    if name == "prompt" and not value.strip():
        raise InvalidField.of(name, value, "a text that is not empty")
    return value


def _between(name: str, value: int, low: int, high: int) -> int:
    if not low <= value <= high:
        raise InvalidField.of(name, value, f"{low} to {high}")
    return value


def _guidance(value: float, capabilities: Capabilities) -> float:
    # NaN is between nothing, so it ends here too.
    if not 1.0 <= value <= capabilities.max_guidance_scale:
        raise InvalidField.of("guidance_scale", value, f"1 to {capabilities.max_guidance_scale:g}")
    return single(value)


def _side(name: str, value: int, capabilities: Capabilities) -> int:
    multiple, low = capabilities.size_multiple, capabilities.min_side
    high = capabilities.max_pixels // low
    if not low <= value <= high or value % multiple:
        raise InvalidField.of(name, value, f"multiples of {multiple} from {low} to {high}")
    return value


def _one_of(name: str, value: str, allowed: tuple[str, ...]) -> str:
    if value not in allowed:
        raise InvalidField.of(name, value, ", ".join(allowed))
    return value


def _sampler(name: str, samplers: tuple[str, ...]) -> str:
    return _one_of("sampler", name, samplers) if samplers else name


def _encoding(fields: Mapping[str, Any]) -> ImageEncoding:
    form = _one_of("image_format", fields.get("image_format", "png"), ("png", "webp", "jpeg"))
    if "image_quality" not in fields:
        return ImageEncoding(form)  # type: ignore[arg-type]
    if form != "jpeg":
        raise InvalidField.of(
            "image_quality", fields["image_quality"], "only with image_format jpeg; png and webp are lossless"
        )
    return ImageEncoding("jpeg", _between("image_quality", fields["image_quality"], 1, 100))
