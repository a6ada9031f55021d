import copy
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from predictor.core import v2
from predictor.core.problems import InvalidField, InvalidRequest, Problem
from predictor.core.request import PARAMETERS
from predictor.core.tensors import DEFAULT_OUTPUTS, Tensor

PROMPT = {"name": "prompt", "shape": [1], "datatype": "BYTES", "data": ["a red circle"]}
SEED = {"name": "seed", "shape": [1, 1], "datatype": "INT64", "data": [[7]]}
SCALE = {"name": "guidance_scale", "shape": [1], "datatype": "FP32", "parameters": {"binary_data_size": 4}}
VALID = {
    "id": "q",
    "inputs": [PROMPT, SEED, SCALE],
    "parameters": {"steps": 4, "binary_data_output": True},
    "outputs": [{"name": "image", "parameters": {"binary_data": False}}, {"name": "generated_image"}],
}
TAIL = np.array([7.5], np.float32).tobytes()
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20)
    | st.sampled_from(["prompt", "BYTES", "INT32", "binary_data_size", 2**62, -1, 2**64, 10**300])
)
JSON = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["name", "data", "shape", "parameters", "inputs"]) | st.text(), inner, max_size=4
        )
    ),
)


def body(document: object, tail: bytes = b"") -> tuple[bytes, int]:
    head = json.dumps(document).encode()
    return head + tail, len(head)


def infer(**changes: object) -> v2.InferRequest:
    return v2.decode_infer(body({"inputs": [PROMPT], **changes})[0])


def refused(document: object, tail: bytes = b"") -> str:
    content, header = body(document, tail)
    with pytest.raises(Problem) as caught:
        v2.decode_infer(content, header)
    assert caught.value.http == 400
    return caught.value.message


def only_problems(content: bytes, header_length: int | None = None) -> None:
    """Decode as each kind of request: all but a Problem would be a bug, and a very long message would be a burden."""
    problems = []
    for decode in (lambda: v2.decode_infer(content, header_length), lambda: v2.decode_generate(content)):
        try:
            decode()
        except Problem as caught:
            problems.append(caught)
    for problem in problems:
        assert problem.http == 400
        assert len(problem.message) < 1000
        problem.message.encode()


def places(document: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inside = (
        document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    )
    return [path, *(place for key, value in inside for place in places(value, (*path, key)))]


@st.composite
def mutants(draw: st.DrawFn) -> dict[str, Any]:
    """A valid request in which up to three places hold something else, or nothing, or one member more."""
    document: dict[str, Any] = copy.deepcopy(VALID)
    for _ in range(draw(st.integers(1, 3))):
        *parents, last = draw(st.sampled_from(places(document)[1:]))
        place: Any = document
        for key in parents:
            place = place[key]
        change = draw(st.sampled_from(["replace", "remove", "add"]))
        if change == "remove":
            del place[last]
        elif change == "add" and isinstance(place, dict):
            place[draw(st.text(max_size=9))] = draw(JSON)
        else:
            place[last] = draw(JSON)
        if len(places(document)) == 1:
            break
    return document


# --- whatever comes: a request or a problem


def test_the_request_that_the_mutants_come_from_is_fine() -> None:
    content, header = body(VALID, TAIL)
    assert v2.decode_infer(content, header) == v2.InferRequest(
        id="q",
        fields={"prompt": "a red circle", "seed": 7, "guidance_scale": 7.5, "steps": 4},
        outputs={"image": False, "generated_image": True},
    )


@given(content=st.binary(max_size=300), header=st.none() | st.integers(-5, 400))
def test_any_bytes(content: bytes, header: int | None) -> None:
    only_problems(content, header)


@given(JSON)
def test_any_json(document: object) -> None:
    only_problems(body(document)[0])


@given(mutants())
def test_any_mutant(document: dict[str, Any]) -> None:
    only_problems(*body(document, TAIL))


@given(at=st.integers(0, 500), insert=st.binary(max_size=3), cut=st.integers(0, 3), header=st.integers(-2, 2))
def test_any_damaged_bytes(at: int, insert: bytes, cut: int, header: int) -> None:
    content, length = body(VALID, TAIL)
    only_problems(content[:at] + insert + content[at + cut :], length + header)


@pytest.mark.parametrize("depth", [100, 400, 900, 1000, 5000, 100_000])
@pytest.mark.parametrize("closed", [True, False])
@pytest.mark.parametrize(
    ("opening", "closing"),
    [
        ("[", "]"),
        ('{"a":', "}"),
        ('{"inputs":[{"name":"seed","shape":[1],"datatype":"INT64","data":[', "]}]}"),
        ('{"inputs":', "}"),
    ],
)
def test_nested_bombs(depth: int, closed: bool, opening: str, closing: str) -> None:
    bomb = "[" * depth + ("1" + "]" * depth if closed else "")
    for content in (
        opening * depth + ("1" + closing * depth if closed else ""),
        opening + bomb + closing,
        '{"prompt":' + bomb + ',"parameters":{"prompt":' + bomb + "}}",
    ):
        only_problems(content.encode())


def test_data_may_be_flat_or_nested_as_its_shape() -> None:
    assert infer(inputs=[PROMPT, {**SEED, "data": [7]}]).fields == infer(inputs=[PROMPT, SEED]).fields
    assert refused({"inputs": [PROMPT, {**SEED, "data": [[7], []]}]}) == (
        "seed: got 2 in a list; allowed: a flat list, or lists nested as its shape [1, 1]"
    )


@pytest.mark.parametrize("shape", [[2**62, 2**62], [2**63 - 1] * 8, [10**6], [0], [2**62] * 50_000])
def test_a_huge_shape_takes_no_memory(shape: list[int]) -> None:
    assert refused({"inputs": [{**SEED, "shape": shape}]}).startswith("seed: got ")


@pytest.mark.parametrize("size", [-1, 5, 2**62, 2**70, 4.0, "4", True])
def test_an_absurd_binary_size(size: object) -> None:
    message = refused({"inputs": [PROMPT, {**SCALE, "parameters": {"binary_data_size": size}}]}, TAIL)
    assert message.startswith("guidance_scale: binary_data_size: got ")
    assert message.endswith("; allowed: 0 to 4, the bytes that are left behind the header")


# --- what callers are told

REFUSED = [
    ({}, "body: Object missing required field `inputs`"),
    ([], "body: Expected `object`, got `array`"),
    ({"inputs": [], "x": 1}, "body: Object contains unknown field `x`"),
    ({"inputs": [{**PROMPT, "shape": [1.5]}]}, "body: Expected `int`, got `float` - at `$.inputs[0].shape[0]`"),
    ({"inputs": [{**PROMPT, "datatype": "STRING"}]}, "prompt: got datatype 'STRING'; allowed: BYTES, BOOL, UINT8, "),
    ({"inputs": [{**PROMPT, "datatype": "INT32", "data": [1]}]}, "prompt: got datatype INT32; allowed: BYTES"),
    ({"inputs": [{**PROMPT, "data": [5]}]}, "prompt: got 5; allowed: BYTES: a text"),
    ({"inputs": [{**PROMPT, "data": [{}]}]}, "prompt: got {}; allowed: BYTES: a text"),
    ({"inputs": [{**SEED, "data": [True]}]}, "seed: got True; allowed: INT64: whole numbers -9223372036854775808 to "),
    ({"inputs": [{**SEED, "data": [2**63]}]}, f"seed: got {2**63}; allowed: INT64: whole numbers -9223372036854775808"),
    (
        {"inputs": [{"name": "prompt", "shape": [1], "datatype": "BYTES"}]},
        "prompt: got no data; allowed: one of `data` and parameters.binary_data_size",
    ),
    (
        {"inputs": [{**PROMPT, "parameters": {"binary_data_size": 0}}]},
        "prompt: got both `data` and parameters.binary_data_size; allowed: one of",
    ),
    (
        {"inputs": [{**PROMPT, "parameters": {"shared_memory_region": "r"}}]},
        "prompt: parameters: shared_memory_region: got 'r'; allowed: only binary_data_size",
    ),
    ({"inputs": [{**PROMPT, "name": "text"}]}, f"text: no such input; allowed: {', '.join(PARAMETERS)}"),
    ({"inputs": [PROMPT, PROMPT]}, "prompt: got two tensors of this name; allowed: one"),
    (
        {"inputs": [PROMPT, SEED], "parameters": {"seed": 8}},
        "seed: got 7 as an input and 8 as a parameter; allowed: one of them, or the same value",
    ),
    ({"inputs": [PROMPT], "outputs": [{"name": "img"}]}, "outputs: got 'img'; allowed: image, generated_image, seed, "),
    (
        {"inputs": [PROMPT], "outputs": [{"name": "seed"}, {"name": "seed"}]},
        "outputs: got seed 2 times; allowed: each output once",
    ),
    (
        {"inputs": [PROMPT], "outputs": [{"name": "generated_image"}]},
        "outputs: generated_image: got raw pixels as JSON; allowed: parameters.binary_data true, gRPC, or the output",
    ),
    (
        {"inputs": [PROMPT], "outputs": [{"name": "image", "parameters": {"classification": 3}}]},
        "outputs: image: parameters: classification: got 3; allowed: only binary_data",
    ),
    (
        {"inputs": [PROMPT], "outputs": [{"name": "image", "parameters": {"binary_data": 1}}]},
        "outputs: image: binary_data: got 1; allowed: true or false",
    ),
    (
        {"inputs": [PROMPT], "parameters": {"binary_data_output": "yes"}},
        "binary_data_output: got 'yes'; allowed: true or false",
    ),
]


@pytest.mark.parametrize(("document", "message"), REFUSED, ids=range(len(REFUSED)))
def test_a_refusal_says_what_came_and_what_is_allowed(document: object, message: str) -> None:
    assert refused(document).startswith(message)


BROKEN = [
    (b"", "body: Input data was truncated"),
    (b"prompt=x", "body: JSON is malformed: invalid character (byte 0)"),
    (b'{"prompt": NaN}', "body: JSON is malformed: invalid character (byte 11)"),
    (b'{"prompt": 1e999}', "body: Number out of range"),
    (b'{"prompt": "caf\xe9"}', "body: got no UTF-8 at byte 3 of a text; allowed: JSON in UTF-8"),
    (b'{"prompt": "a"} {}', "body: JSON is malformed: trailing characters (byte 17)"),
    (b'{"prompt": "a", "prompt": "b"}', "prompt: got this name twice in one object; allowed: once"),
    (
        b'{"prompt": "a", "parameters": {"seed": 1, "seed": 1}}',
        "seed: got this name twice in one object; allowed: once",
    ),
    (b'{"prompt": "' + b"x" * 99 + b'", "parameters": {"prompt": "y"}}', "prompt: got 'xxxxxxxx"),
    (
        b'{"prompt": "a", "negative_prompt": null}',
        "negative_prompt: got None; allowed: a text, a number, true or false",
    ),
    (b'{"prompt": ["a"]}', "prompt: got ['a']; allowed: a text, a number, true or false"),
    (b'{"prompt": "a", "parameters": [1]}', "parameters: got [1]; allowed: an object"),
    (b'{"prompt": "a", "id": 5}', "id: got 5; allowed: a text"),
]


@pytest.mark.parametrize(("content", "message"), BROKEN, ids=range(len(BROKEN)))
def test_a_broken_generate_body(content: bytes, message: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        v2.decode_generate(content)
    assert caught.value.message.startswith(message)
    assert len(caught.value.message) < 250


def test_a_name_of_a_megabyte_is_not_sent_back() -> None:
    name = "x" * 10**6
    for document in (
        {"inputs": [{**PROMPT, "name": name}]},
        {"inputs": [], name: 1},
        {"inputs": [], "outputs": [{"name": name}]},
    ):
        assert len(refused(document)) < 500


@pytest.mark.parametrize("header", [-1, 10**9])
def test_a_header_length_outside_the_body(header: int) -> None:
    with pytest.raises(InvalidRequest, match=rf"^Inference-Header-Content-Length: got {header}; allowed: 0 to 2,"):
        v2.decode_infer(b"{}", header)


def test_bytes_behind_the_last_tensor() -> None:
    assert refused({"inputs": [PROMPT]}, b"xyz") == ("body: got 3 bytes behind the last binary tensor; allowed: none")


# --- what is understood


def test_the_default_outputs() -> None:
    assert infer().outputs == dict.fromkeys(DEFAULT_OUTPUTS, False)
    assert infer(outputs=[]).outputs == dict.fromkeys(DEFAULT_OUTPUTS, False)
    assert infer(parameters={"binary_data_output": True}).outputs == dict.fromkeys(DEFAULT_OUTPUTS, True)


def test_parameters_and_tensors_give_the_same_fields() -> None:
    assert (
        infer(parameters={"seed": 7, "steps": 4}).fields == infer(inputs=[PROMPT, SEED], parameters={"steps": 4}).fields
    )


def test_generate_takes_fields_at_the_top_and_under_parameters() -> None:
    flat = b'{"id": "q", "prompt": "x", "seed": 7, "truncate_prompt": true, "guidance_scale": 7.5}'
    nested = b'{"id": "q", "prompt": "x", "parameters": {"seed": 7, "truncate_prompt": true, "guidance_scale": 7.5}}'
    fields = {"prompt": "x", "seed": 7, "truncate_prompt": True, "guidance_scale": 7.5}
    assert v2.decode_generate(flat) == v2.decode_generate(nested) == ("q", fields)


def test_a_numpy_tensor_goes_into_json_as_well() -> None:
    content, _ = v2.encode_infer("sd", "q", [Tensor("seed", "INT64", (2,), np.array([1, 2]))], {}, {})
    assert json.loads(content)["outputs"] == [{"name": "seed", "datatype": "INT64", "shape": [2], "data": [1, 2]}]


def test_a_field_of_a_problem_is_the_tensors_name() -> None:
    with pytest.raises(InvalidField) as caught:
        infer(inputs=[{**PROMPT, "data": [5]}])
    assert caught.value.field == "prompt"
