from concurrent.futures import Executor
from typing import Any

import msgspec
import pytest

from predictor.core.metadata import metadata
from predictor.core.problems import InvalidField
from predictor.core.request import PARAMETERS, Capabilities, resolve
from predictor.core.tensors import OUTPUTS
from tests.core import kserve_codec


@pytest.fixture
def inputs(capabilities: Capabilities) -> dict[str, dict[str, Any]]:
    return {item["name"]: item for item in metadata("sd", capabilities)["inputs"]}


def allows(field: str, value: object, capabilities: Capabilities) -> bool:
    try:
        resolve({"prompt": "x", "width": 64, "height": 64, "image_format": "jpeg", field: value}, capabilities, 0)
    except InvalidField:
        return False
    return True


def test_every_tensor_is_listed_with_its_meaning(capabilities: Capabilities, inputs: dict[str, dict[str, Any]]) -> None:
    assert set(inputs) == set(PARAMETERS)
    outputs = metadata("sd", capabilities)["outputs"]
    assert {item["name"] for item in outputs} == set(OUTPUTS)
    for item in (*inputs.values(), *outputs):
        assert set(item) == {"name", "datatype", "shape", "parameters"}
        assert item["parameters"]["meaning"]
        # v2 parameters are plain values: nothing nested.
        assert all(isinstance(value, str | int | float | bool) for value in item["parameters"].values())


def test_a_parameter_that_the_model_lacks_is_not_listed(capabilities: Capabilities) -> None:
    fewer = msgspec.structs.replace(capabilities, parameters=("prompt", "seed"))
    assert [item["name"] for item in metadata("sd", fewer)["inputs"]] == ["prompt", "seed"]


def test_the_limits_are_the_ones_that_are_enforced(
    capabilities: Capabilities, inputs: dict[str, dict[str, Any]]
) -> None:
    checked = set()
    for name, item in inputs.items():
        limits = item["parameters"]
        step = limits.get("multiple_of", 1)
        if "minimum" in limits:
            checked.add(name)
            assert allows(name, limits["minimum"], capabilities)
            assert not allows(name, limits["minimum"] - step, capabilities)
        if "maximum" in limits:
            assert allows(name, limits["maximum"], capabilities)
            assert not allows(name, limits["maximum"] + 1, capabilities)
        if "multiple_of" in limits:
            assert allows(name, limits["minimum"] + step, capabilities)
            assert not allows(name, limits["minimum"] + step - 1, capabilities)
        if "max_pixels" in limits:
            assert allows(name, limits["max_pixels"] // 64, capabilities)
            assert not allows(name, limits["max_pixels"] // 64 + step, capabilities)
        if "max_bytes" in limits:
            assert allows(name, "x" * limits["max_bytes"], capabilities)
            assert not allows(name, "x" * (limits["max_bytes"] + 1), capabilities)
        for choice in limits.get("allowed", "").split(", "):
            assert allows(name, choice, capabilities) or not choice
    assert checked == {"seed", "steps", "guidance_scale", "height", "width", "num_images", "image_quality"}


def test_the_defaults_are_the_ones_that_are_used(capabilities: Capabilities, inputs: dict[str, dict[str, Any]]) -> None:
    request, encoding = resolve({"prompt": "x"}, capabilities, fresh_seed=0)
    used = {
        **msgspec.structs.asdict(request),
        "image_format": encoding.format,
        "image_quality": encoding.quality,
    }
    defaults = {name: item["parameters"]["default"] for name, item in inputs.items() if "default" in item["parameters"]}
    assert defaults == {name: used[name] for name in defaults}
    assert set(inputs) - set(defaults) == {"prompt", "seed"}


def test_a_model_without_a_token_limit_states_none(capabilities: Capabilities) -> None:
    free = msgspec.structs.replace(capabilities, max_prompt_tokens=None)
    prompt, *_ = metadata("sd", free)["inputs"]
    assert "max_tokens" not in prompt["parameters"]


def test_kserves_own_type_reads_it(capabilities: Capabilities, kserve_process: Executor) -> None:
    body = msgspec.json.encode(metadata("sd", capabilities))
    assert kserve_process.submit(kserve_codec.metadata, body).result() == ("sd", [*PARAMETERS])
