import math
import struct
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from predictor.core.problems import InvalidField
from predictor.core.request import (
    ANY_MODEL,
    MAX_SEED,
    PARAMETERS,
    Capabilities,
    GenerationRequest,
    ImageEncoding,
    resolve,
    single,
)
from predictor.settings import EngineSettings

BELIEVABLE: dict[str, st.SearchStrategy[object]] = {
    "prompt": st.text(st.characters(exclude_categories=()), max_size=1200),
    "negative_prompt": st.text(st.characters(exclude_categories=()), max_size=1200),
    "seed": st.integers(-1, MAX_SEED + 1) | st.sampled_from([0, MAX_SEED]),
    "steps": st.integers(-1, 160),
    "guidance_scale": st.floats() | st.floats(0.9, 30.1) | st.integers(0, 31),
    "height": st.integers(0, 80).map(lambda eighth: eighth * 8) | st.integers(-8, 5000),
    "width": st.integers(0, 80).map(lambda eighth: eighth * 8) | st.integers(-8, 5000),
    "sampler": st.sampled_from(["ddim", "euler", "DDIM", ""]),
    "num_images": st.integers(-1, 9),
    "truncate_prompt": st.booleans(),
    "image_format": st.sampled_from(["png", "webp", "jpeg", "gif"]),
    "image_quality": st.integers(0, 101),
}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=4),
)
ANYTHING = JSON | st.binary() | st.sampled_from([10**400, -(10**5000), 2**63, "\ud800", math.nan, "x" * 10**6])
ONE_FIELD = st.sampled_from([*BELIEVABLE]).flatmap(lambda name: st.fixed_dictionaries({name: BELIEVABLE[name]}))
MOSTLY_BELIEVABLE = st.lists(ONE_FIELD, max_size=3).map(
    lambda fields: {"prompt": "a red circle", **{name: value for one in fields for name, value in one.items()}}
)
MOSTLY_WRONG = st.dictionaries(st.sampled_from([*PARAMETERS]) | st.text(), ANYTHING, max_size=5)


@given(fields=MOSTLY_BELIEVABLE | MOSTLY_WRONG)
def test_any_fields_give_a_request_within_limits_or_a_problem_that_names_one(
    fields: dict[str, Any], capabilities: Capabilities
) -> None:
    problem = None
    try:
        request, encoding = resolve(fields, capabilities, fresh_seed=11)
    except InvalidField as refusal:
        problem = refusal
    if problem is not None:
        assert problem.field in (*PARAMETERS, "height and width") or any(name not in PARAMETERS for name in fields)
        assert problem.message.startswith(f"{problem.field}: ")
        assert "; allowed: " in problem.message
        assert len(problem.message) < 1000
        msgspec.json.encode(problem.record())  # it can be sent, whatever came
        return
    assert request.prompt.strip()
    assert len(request.prompt.encode()) <= capabilities.max_prompt_bytes
    assert len(request.negative_prompt.encode()) <= capabilities.max_prompt_bytes
    assert all(0 <= seed < 2**53 for seed in request.seeds)
    assert len(request.seeds) == request.num_images
    assert 1 <= request.steps <= capabilities.max_steps
    assert 1 <= request.guidance_scale <= capabilities.max_guidance_scale
    assert request.height * request.width <= capabilities.max_pixels
    assert min(request.height, request.width) >= capabilities.min_side
    assert request.height % 8 == request.width % 8 == 0
    assert request.sampler in capabilities.samplers
    assert 1 <= request.num_images <= capabilities.max_images
    assert encoding.format in ("png", "webp", "jpeg")
    assert 1 <= encoding.quality <= 100
    for name, value in fields.items():  # nothing is ignored, clamped or coerced
        taken = {"image_format": encoding.format, "image_quality": encoding.quality, **msgspec.structs.asdict(request)}
        assert taken[name] == (single(value) if name == "guidance_scale" else value)


def test_gaps_are_filled_with_the_models_defaults(capabilities: Capabilities) -> None:
    request, encoding = resolve({"prompt": "a red circle"}, capabilities, fresh_seed=11)
    assert request == GenerationRequest(
        prompt="a red circle",
        negative_prompt="",
        seed=11,
        steps=20,
        guidance_scale=5.0,
        height=128,
        width=128,
        sampler="dpmpp_2m",
        num_images=1,
        truncate_prompt=False,
    )
    assert encoding == ImageEncoding("png", 90)


def test_each_image_has_the_next_seed(capabilities: Capabilities) -> None:
    request, _ = resolve({"prompt": "x", "seed": MAX_SEED, "num_images": 3}, capabilities, fresh_seed=0)
    assert request.seeds == (MAX_SEED, MAX_SEED + 1, MAX_SEED + 2)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "prompt: missing; allowed: a text that is not empty"),
        ({"prompt": ""}, "prompt: got ''; allowed: a text that is not empty"),
        ({"prompt": " \n"}, r"prompt: got ' \n'; allowed: a text that is not empty"),
        ({"prompt": "x" * 100_000}, "prompt: got 100000 bytes; allowed: at most 1000"),
        ({"prompt": "é" * 501}, "prompt: got 1002 bytes; allowed: at most 1000"),
        ({"prompt": "\udcff"}, "prompt: got a lone surrogate; allowed: text that UTF-8 can hold"),
        ({"prompt": 5}, "prompt: got 5; allowed: a text"),
        ({"prompt": b"x"}, "prompt: got b'x'; allowed: a text"),
        ({"negative_prompt": None}, "negative_prompt: got None; allowed: a text"),
        ({"seed": -1}, "seed: got -1; allowed: 0 to 9007199254739967"),
        ({"seed": 2**63}, "seed: got 9223372036854775808; allowed: 0 to 9007199254739967"),
        ({"seed": 10**400}, "seed: got a whole number of 1329 bits; allowed: 0 to 9007199254739967"),
        ({"seed": True}, "seed: got True; allowed: a whole number"),
        ({"steps": 0}, "steps: got 0; allowed: 1 to 150"),
        ({"steps": 10000}, "steps: got 10000; allowed: 1 to 150"),
        ({"steps": 5.0}, "steps: got 5.0; allowed: a whole number"),
        ({"guidance_scale": math.nan}, "guidance_scale: got nan; allowed: 1 to 30"),
        ({"guidance_scale": math.inf}, "guidance_scale: got inf; allowed: 1 to 30"),
        ({"guidance_scale": 10**400}, "guidance_scale: got a whole number of 1329 bits; allowed: 1 to 30"),
        ({"guidance_scale": 0.5}, "guidance_scale: got 0.5; allowed: 1 to 30"),
        ({"guidance_scale": "7"}, "guidance_scale: got '7'; allowed: a number"),
        ({"height": 100}, "height: got 100; allowed: multiples of 8 from 64 to 4096"),
        ({"width": 2**40}, "width: got 1099511627776; allowed: multiples of 8 from 64 to 4096"),
        (
            {"height": 512, "width": 520},
            "height and width: got 512 x 520; allowed: at most 262144 pixels in all",
        ),
        ({"sampler": "dpm"}, "sampler: got 'dpm'; allowed: ddim, euler, dpmpp_2m"),
        ({"num_images": 0}, "num_images: got 0; allowed: 1 to 8"),
        ({"num_images": 1000}, "num_images: got 1000; allowed: 1 to 8"),
        ({"truncate_prompt": 1}, "truncate_prompt: got 1; allowed: true or false"),
        ({"image_format": "gif"}, "image_format: got 'gif'; allowed: png, webp, jpeg"),
        (
            {"image_quality": 80},
            "image_quality: got 80; allowed: only with image_format jpeg; png and webp are lossless",
        ),
        ({"image_format": "jpeg", "image_quality": 101}, "image_quality: got 101; allowed: 1 to 100"),
        ({"scheduler": "ddim"}, f"scheduler: no such parameter; allowed: {', '.join(PARAMETERS)}"),
    ],
)
def test_a_refusal_names_the_field_what_came_and_what_is_allowed(
    fields: dict[str, object], message: str, capabilities: Capabilities
) -> None:
    valid = {} if not fields else {"prompt": "a red circle"}
    with pytest.raises(InvalidField) as caught:
        resolve({**valid, **fields}, capabilities, fresh_seed=0)
    assert caught.value.message == message
    assert message.startswith(f"{caught.value.field}: ")


def test_a_model_may_take_fewer_parameters(capabilities: Capabilities) -> None:
    fewer = msgspec.structs.replace(capabilities, parameters=("prompt", "seed"))
    with pytest.raises(InvalidField, match="negative_prompt: no such parameter; allowed: prompt, seed"):
        resolve({"prompt": "x", "negative_prompt": "y"}, fewer, fresh_seed=0)


@given(st.floats(-3e38, 3e38) | st.floats(1, 30))
@example(10.926620006930799)  # half way between two FP32 numbers, but for the last bit
def test_single_is_the_shortest_spelling_of_the_nearest_fp32(value: float) -> None:
    assert single(value) == float(str(np.float32(value)))
    assert struct.pack("f", single(value)) == struct.pack("f", value)
    assert single(single(value)) == single(value)


def test_one_number_has_one_spelling() -> None:
    assert single(7.300000190734863) == single(7.3) == 7.3
    assert single(1e300) == 1e300  # beyond FP32: for the limits to refuse
    assert math.isnan(single(math.nan))


def test_any_model_is_as_large_as_a_predictor_can_be_set():
    for name in ("max_steps", "max_images", "max_pixels", "max_prompt_bytes"):
        most = getattr(ANY_MODEL, name)
        assert getattr(msgspec.convert({"model": "m", name: most}, EngineSettings), name) == most
        with pytest.raises(msgspec.ValidationError):
            msgspec.convert({"model": "m", name: most + 1}, EngineSettings)


@given(fields=st.fixed_dictionaries({}, optional=BELIEVABLE))
def test_what_a_model_can_do_any_model_can_and_for_no_more(capabilities, fields):
    try:
        request, encoding = resolve({"prompt": "a"} | fields, capabilities, 5)
    except InvalidField:
        return
    least, same = resolve({"prompt": "a"} | fields, ANY_MODEL, 5)
    assert same == encoding
    assert least.height * least.width * least.steps <= request.height * request.width * request.steps
