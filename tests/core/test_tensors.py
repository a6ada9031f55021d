import base64
from typing import Any

import numpy as np
import pytest
import tritonclient.http
import tritonclient.utils
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from predictor.core.problems import InvalidField
from predictor.core.request import PARAMETERS
from predictor.core.tensors import (
    DEFAULT_OUTPUTS,
    NUMPY,
    OUTPUTS,
    Tensor,
    base64_text,
    fields,
    merged,
    output_names,
    tensor,
    to_bytes,
)

SHAPES = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)
ARRAYS = st.sampled_from([*NUMPY.values()]).flatmap(lambda dtype: hnp.arrays(dtype, SHAPES))
TEXTS = st.lists(st.binary(max_size=20), max_size=8)


def wire_name(array: np.ndarray[Any, Any]) -> str:
    return str(tritonclient.utils.np_to_triton_dtype(array.dtype))


def same(one: list[Any], other: list[Any]) -> bool:
    return bool(np.array_equal(np.array(one), np.array(other), equal_nan=True))


def test_the_datatypes_are_tritons() -> None:
    for name, dtype in NUMPY.items():
        assert tritonclient.utils.np_to_triton_dtype(np.dtype(dtype)) == name
        assert np.dtype(tritonclient.utils.triton_to_np_dtype(name)) == dtype


@given(ARRAYS)
def test_numbers_have_the_clients_bytes(array: np.ndarray[Any, Any]) -> None:
    theirs = tritonclient.http.InferInput("x", list(array.shape), wire_name(array))
    theirs.set_data_from_numpy(array)
    raw = theirs._get_binary_data() or b""
    ours = tensor("x", wire_name(array), array.shape, raw)
    assert ours.shape == array.shape
    assert same(ours.data, array.ravel().tolist())
    assert to_bytes(ours) == raw
    assert to_bytes(Tensor("x", wire_name(array), array.shape, array)) == raw  # pixels stay an array


@given(TEXTS)
def test_texts_have_the_clients_bytes(texts: list[bytes]) -> None:
    array = np.array(texts, dtype=object)
    raw = tritonclient.utils.serialize_byte_tensor(array)
    raw = raw.item() if raw.size else b""
    ours = tensor("x", "BYTES", [len(texts)], raw)
    assert ours.data == texts
    assert to_bytes(ours) == raw
    assert tritonclient.utils.deserialize_bytes_tensor(to_bytes(ours)).tolist() == texts


@given(ARRAYS)
def test_lists_arrays_and_raw_bytes_are_one_tensor(array: np.ndarray[Any, Any]) -> None:
    datatype = wire_name(array)
    nested = tensor("x", datatype, array.shape, array.tolist() if array.ndim else [array.item()])
    flat = tensor("x", datatype, array.shape, array.ravel().tolist())
    given_array = tensor("x", datatype, array.shape, array)
    raw = tensor("x", datatype, array.shape, array.tobytes())
    assert same(nested.data, raw.data)
    assert same(flat.data, raw.data)
    assert same(given_array.data, raw.data)
    assert all(type(value) in (bool, int, float) for value in raw.data)


@given(
    datatype=st.sampled_from(["BYTES", *NUMPY]) | st.text(max_size=8),
    shape=st.lists(st.integers(-2, 6) | st.sampled_from([2**31, 2**62, 2**63, 2**64]), max_size=9),
    data=st.binary(max_size=64)
    | st.lists(
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=1),
        ),
        max_size=4,
    ),
)
def test_any_content_is_a_tensor_or_a_problem_that_names_it(datatype: str, shape: list[int], data: Any) -> None:
    made: Tensor | InvalidField
    try:
        made = tensor("steps", datatype, shape, data)
    except InvalidField as problem:
        made = problem
    if isinstance(made, InvalidField):
        assert made.field == "steps"
        assert "; allowed: " in made.message
        assert len(made.message) < 500
    else:
        assert len(made.data) == np.prod(shape, dtype=object)
        if not isinstance(data, bytes):
            to_bytes(made)  # whatever is accepted has a binary form


REFUSED = [
    (("BYTES", [1], [5]), "x: got 5; allowed: BYTES: a text"),
    (("BYTES", [1], [None]), "x: got None; allowed: BYTES: a text"),
    (("INT32", [1], [True]), "x: got True; allowed: INT32: whole numbers -2147483648 to 2147483647"),
    (("INT32", [1], [5.0]), "x: got 5.0; allowed: INT32: whole numbers -2147483648 to 2147483647"),
    (("INT32", [1], ["5"]), "x: got '5'; allowed: INT32: whole numbers -2147483648 to 2147483647"),
    (("INT8", [1], [300]), "x: got 300; allowed: INT8: whole numbers -128 to 127"),
    (("UINT8", [1], [-1]), "x: got -1; allowed: UINT8: whole numbers 0 to 255"),
    (
        ("INT64", [1], [2**63]),
        f"x: got {2**63}; allowed: INT64: whole numbers -9223372036854775808 to 9223372036854775807",
    ),
    (("BOOL", [1], [1]), "x: got 1; allowed: BOOL: true or false"),
    (("FP32", [1], [True]), "x: got True; allowed: FP32: numbers from -3.40282e+38 to 3.40282e+38"),
    (("FP32", [1], [1e39]), "x: got 1e+39; allowed: FP32: numbers from -3.40282e+38 to 3.40282e+38"),
    (("FP16", [1], [65536]), "x: got 65536; allowed: FP16: numbers from -65504 to 65504"),
    (
        ("STRING", [1], ["a"]),
        "x: got datatype 'STRING'; allowed: BYTES, BOOL, UINT8, UINT16, UINT32, UINT64, INT8, INT16, INT32, INT64, "
        "FP16, FP32, FP64",
    ),
    (("INT32", [2], [1]), "x: got 1 elements; allowed: 2, the product of its shape [2]"),
    (("INT32", [2], [1, 2, 3, 4]), "x: got 4 elements; allowed: 2, the product of its shape [2]"),
    (("INT32", [0], [1]), "x: got 1 elements; allowed: 0, the product of its shape [0]"),
    (("INT32", [1], None), "x: got 0 elements; allowed: 1, the product of its shape [1]"),
    (("INT32", [1], b"\1\0\0"), "x: got 3 bytes; allowed: 4 for its shape"),
    (
        ("BYTES", [1], b"\5\0\0\0abc"),
        "x: its binary data ends inside an element; allowed: 4 bytes of length, then as many",
    ),
    (("BYTES", [1], b"\5\0"), "x: its binary data ends inside an element; allowed: 4 bytes of length, then as many"),
    (
        ("BYTES", [1], b"\0\0\0\0" * 9),
        "x: got bytes behind its 1 elements; allowed: no more than its shape holds",
    ),
    (("INT32", [1], [[5]]), "x: got [5]; allowed: INT32: whole numbers -2147483648 to 2147483647"),
    (("INT32", [1, 1], [[5], []]), "x: got 2 in a list; allowed: a flat list, or lists nested as its shape [1, 1]"),
    (("INT32", [1, 2], [[5], 6]), "x: got 2 in a list; allowed: a flat list, or lists nested as its shape [1, 2]"),
    (("INT32", [2, 1], [[5], 6]), "x: got 6; allowed: a flat list, or lists nested as its shape [1]"),
    (
        ("INT32", [2**62, 2**62], [1]),
        f"x: got 1 elements; allowed: {2**124}, the product of its shape [{2**62}, {2**62}]",
    ),
    (("INT32", [-1], [1]), "x: got shape [-1]; allowed: at most 8 whole numbers from 0 to 9223372036854775807"),
    (("INT32", [2**63], [1]), f"x: got shape [{2**63}]; allowed: at most 8 whole numbers from 0 to {2**63 - 1}"),
    (("INT32", [True], [1]), "x: got shape [True]; allowed: at most 8 whole numbers from 0 to 9223372036854775807"),
]


@pytest.mark.parametrize(("content", "message"), REFUSED, ids=range(len(REFUSED)))
def test_refusals(content: tuple[str, list[int], Any], message: str) -> None:
    with pytest.raises(InvalidField) as caught:
        tensor("x", *content)
    assert caught.value.message == message


def test_a_shape_whose_product_would_take_minutes_is_refused_at_once() -> None:
    with pytest.raises(InvalidField, match="at most 8 whole numbers"):
        tensor("x", "INT32", [2**62] * 400_000, [1])


def test_texts_become_utf8() -> None:
    assert tensor("x", "BYTES", [2, 1], [["é"], ["b"]]).data == ["é".encode(), b"b"]


# --- fields


def one(name: str, datatype: str, data: Any) -> Tensor:
    return tensor(name, datatype, [1], [data])


def test_every_parameter_may_come_as_a_tensor_of_its_own_datatype() -> None:
    values = {"BYTES": "x", "BOOL": True, "FP32": 7.5, "INT32": 4, "INT64": 4}
    for parameter in PARAMETERS.values():
        given = fields([one(parameter.name, parameter.datatype, values[parameter.datatype])], {})
        assert given == {parameter.name: values[parameter.datatype]}
        assert type(given[parameter.name]) is parameter.kind


@pytest.mark.parametrize("datatype", ["FP32", "FP64"])
@pytest.mark.parametrize("raw", [True, False], ids=["binary", "list"])
def test_a_guidance_scale_reads_as_it_was_typed(datatype: str, raw: bool) -> None:
    array: np.ndarray[Any, Any] = np.array([7.3], NUMPY[datatype])
    item = tensor("guidance_scale", datatype, [1], array.tobytes() if raw else array.tolist())
    assert fields([item], {"guidance_scale": 7.3}) == {"guidance_scale": 7.3}


REFUSED_FIELDS = [
    ([one("prompt", "INT32", 1)], {}, "prompt: got datatype INT32; allowed: BYTES"),
    ([one("guidance_scale", "INT32", 1)], {}, "guidance_scale: got datatype INT32; allowed: FP32, FP64, FP16"),
    (
        [tensor("seed", "INT64", [2], [1, 2])],
        {},
        "seed: got shape [2]; allowed: [1] or [1, 1], for one value per request",
    ),
    ([tensor("seed", "INT64", [0], [])], {}, "seed: got shape [0]; allowed: [1] or [1, 1], for one value per request"),
    ([one("prompt", "BYTES", b"caf\xe9")], {}, "prompt: got no UTF-8 at byte 3; allowed: UTF-8"),
    ([one("cfg", "FP32", 1.0)], {}, f"cfg: no such input; allowed: {', '.join(PARAMETERS)}"),
    ([one("seed", "INT64", 1), one("seed", "INT64", 1)], {}, "seed: got two tensors of this name; allowed: one"),
    (
        [one("seed", "INT64", 1)],
        {"seed": 2},
        "seed: got 1 as an input and 2 as a parameter; allowed: one of them, or the same value",
    ),
    (
        [one("seed", "INT64", 1)],
        {"seed": True},
        "seed: got 1 as an input and True as a parameter; allowed: one of them, or the same value",
    ),
]


@pytest.mark.parametrize(("tensors", "parameters", "message"), REFUSED_FIELDS, ids=range(len(REFUSED_FIELDS)))
def test_refused_fields(tensors: list[Tensor], parameters: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidField) as caught:
        fields(tensors, parameters)
    assert caught.value.message == message
    assert caught.value.field == tensors[0].name


def test_a_value_in_both_places_is_fine_if_it_is_one_value() -> None:
    assert merged({"seed": 7, "guidance_scale": 7.0}, {"guidance_scale": 7, "prompt": "x"}) == {
        "seed": 7,
        "guidance_scale": 7,
        "prompt": "x",
    }


# --- outputs


def test_outputs() -> None:
    assert output_names(None) == output_names([]) == DEFAULT_OUTPUTS
    assert "generated_image" not in DEFAULT_OUTPUTS
    assert output_names(["seed", "image"]) == ("seed", "image")
    with pytest.raises(InvalidField, match=r"^outputs: got 'picture'; allowed: image, generated_image, seed"):
        output_names(["picture"])
    with pytest.raises(InvalidField, match=r"^outputs: got image 2 times; allowed: each output once"):
        output_names(["image", "seed", "image"])
    assert set(DEFAULT_OUTPUTS) < set(OUTPUTS)


@given(st.binary())
def test_an_encoded_picture_is_base64_text(blob: bytes) -> None:
    assert base64.b64decode(base64_text(blob).decode("ascii"), validate=True) == blob
