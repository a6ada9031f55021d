"""The codec against the serialisers of tritonclient and kserve, which share no code with it."""

import json
from concurrent.futures import Executor
from typing import Any

import numpy as np
import tritonclient.http
from hypothesis import example, given
from hypothesis import strategies as st

from predictor.core import v2
from predictor.core.request import PARAMETERS
from predictor.core.tensors import Tensor
from tests.core import kserve_codec

PROMPTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40)
WISHES = st.fixed_dictionaries(
    {
        "prompt": PROMPTS,
        "seed": st.integers(-(2**63), 2**63 - 1),
        "steps": st.integers(-(2**31), 2**31 - 1),
        "guidance_scale": st.floats(width=32, allow_nan=False, allow_infinity=False),
        "truncate_prompt": st.booleans(),
    }
)


def array_of(name: str, value: object) -> np.ndarray[Any, Any]:
    dtype = {"INT64": np.int64, "INT32": np.int32, "FP32": np.float32, "BOOL": np.bool_}.get(PARAMETERS[name].datatype)
    return np.array([value if dtype else str(value).encode()], dtype or np.object_)


def expected(wishes: dict[str, Any]) -> dict[str, Any]:
    return {**wishes, "guidance_scale": float(str(np.float32(wishes["guidance_scale"])))}


@given(wishes=WISHES, binary=st.lists(st.sampled_from([*PARAMETERS]), unique=True))
@example(
    wishes={"prompt": "a", "seed": 1, "steps": 4, "guidance_scale": 7.3, "truncate_prompt": True}, binary=["prompt"]
)
def test_what_tritons_client_sends(wishes: dict[str, Any], binary: list[str]) -> None:
    inputs = []
    for name, value in wishes.items():
        item = tritonclient.http.InferInput(name, [1], PARAMETERS[name].datatype)
        inputs.append(item.set_data_from_numpy(array_of(name, value), binary_data=name in binary))
    outputs = [tritonclient.http.InferRequestedOutput("image"), tritonclient.http.InferRequestedOutput("seed", False)]
    content, header = tritonclient.http.InferenceServerClient.generate_request_body(inputs, outputs, "q")
    request = v2.decode_infer(content, header)
    assert request.id == "q"
    assert request.fields == expected(wishes)
    assert request.outputs == {"image": True, "seed": False}


@given(wishes=WISHES, binary=st.lists(st.sampled_from([*PARAMETERS]), unique=True))
def test_what_kserves_client_sends(kserve_process: Executor, wishes: dict[str, Any], binary: list[str]) -> None:
    arrays = {name: (PARAMETERS[name].datatype, array_of(name, value)) for name, value in wishes.items()}
    sent, header = kserve_process.submit(kserve_codec.send, arrays, binary).result()
    request = v2.decode_infer(sent, header)
    assert (request.id, request.model_name) == ("q", "sd")
    assert request.fields == expected(wishes)
    assert request.outputs == {"image": True}


PIXELS = np.arange(2 * 8 * 8 * 3, dtype=np.uint8).reshape(2, 8, 8, 3)
ANSWER = [
    Tensor("image", "BYTES", (2,), [b"aW1hZ2U=", b""]),
    Tensor("generated_image", "UINT8", PIXELS.shape, PIXELS),
    Tensor("seed", "INT64", (2,), [7, 2**53 - 1]),
    Tensor("guidance_scale", "FP32", (1,), [7.3]),
    Tensor("sampler", "BYTES", (1,), [b"ddim"]),
]


@given(st.sets(st.sampled_from([item.name for item in ANSWER])))
def test_what_the_clients_receive(kserve_process: Executor, binary: set[str]) -> None:
    answer = [item for item in ANSWER if item.name != "generated_image" or "generated_image" in binary]
    content, header = v2.encode_infer("sd", "q", answer, dict.fromkeys(binary, True), {"cold_start": True})
    assert (header is None) == (not binary)
    head = json.loads(content[:header])
    assert (head["model_name"], head["id"], head["parameters"]) == ("sd", "q", {"cold_start": True})

    triton = tritonclient.http.InferResult.from_response_body(content, header_length=header)
    kserves = kserve_process.submit(kserve_codec.receive, content, header).result()
    for item in answer:
        for array in (triton.as_numpy(item.name), kserves[item.name]):
            assert tuple(array.shape) == item.shape
            if item.datatype == "BYTES":
                flat = [value if isinstance(value, bytes) else value.encode() for value in array.ravel().tolist()]
                assert flat == item.data
            else:
                assert np.array_equal(array, np.asarray(item.data, array.dtype))
