import msgspec
import pytest

from predictor.core.fingerprint import fingerprint
from predictor.core.request import Capabilities, GenerationRequest, resolve

REQUEST = GenerationRequest(
    prompt="a small red circle on a blue background",
    negative_prompt="",
    seed=7,
    steps=20,
    guidance_scale=7.3,
    height=128,
    width=128,
    sampler="ddim",
    num_images=1,
    truncate_prompt=False,
)


def test_golden_value() -> None:
    # Caches and receipts outlive a release: this changes with NUMERICS, or when a field is added, and never unnoticed.
    assert fingerprint(REQUEST, "3f2a") == "af789275a6ac272334ada0de66cdba16d3b7aaf8cb78a4d6556209c9e5d7bc4a"


@pytest.mark.parametrize(
    "change",
    [
        {"prompt": "a small red circle on a blue background "},
        {"negative_prompt": "green"},
        {"seed": 8},
        {"steps": 21},
        {"guidance_scale": 7.4},
        {"height": 136},
        {"width": 136},
        {"sampler": "euler"},
        {"num_images": 2},
        {"truncate_prompt": True},
    ],
    ids=lambda change: next(iter(change)),
)
def test_every_field_counts(change: dict[str, object]) -> None:
    assert fingerprint(msgspec.structs.replace(REQUEST, **change), "3f2a") != fingerprint(REQUEST, "3f2a")
    assert set(change) < set(GenerationRequest.__struct_fields__)


def test_the_models_revision_counts() -> None:
    assert fingerprint(REQUEST, "3f2b") != fingerprint(REQUEST, "3f2a")


def test_texts_do_not_run_into_each_other() -> None:
    one = msgspec.structs.replace(REQUEST, prompt="a", negative_prompt="bc")
    other = msgspec.structs.replace(REQUEST, prompt="ab", negative_prompt="c")
    assert fingerprint(one, "r") != fingerprint(other, "r")


def test_one_request_has_one_fingerprint_in_every_dialect(capabilities: Capabilities) -> None:
    plain = {"prompt": "x", "seed": 7}
    defaults = {"steps": capabilities.default_steps, "guidance_scale": capabilities.default_guidance_scale}
    packaging = {"image_format": "jpeg", "image_quality": 50}
    spellings = [
        plain,
        {**plain, **defaults},
        {**plain, "guidance_scale": int(capabilities.default_guidance_scale)},
        {**plain, "guidance_scale": capabilities.default_guidance_scale + 1e-9},  # not in FP32
        {**plain, **packaging},
        dict(reversed(plain.items())),
    ]
    prints = {fingerprint(resolve(fields, capabilities, 0)[0], "r") for fields in spellings}
    assert len(prints) == 1


def test_the_wire_keeps_it() -> None:
    again = msgspec.msgpack.decode(msgspec.msgpack.encode(REQUEST), type=GenerationRequest)
    assert fingerprint(again, "3f2a") == fingerprint(REQUEST, "3f2a")
