"""Schemathesis asks the real edge for whatever its OpenAPI document allows, and for what it forbids."""

import json

import msgspec
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.config import SchemathesisConfig

from predictor.core.request import PARAMETERS, Capabilities
from predictor.edge.openapi import document

# A model so small that a picture takes milliseconds: what is larger is refused by the edge itself.
SMALL = Capabilities(
    architecture="StableDiffusionPipeline",
    revision="as the predictor says",
    runtime="eager",
    device="cpu",
    dtype="float32",
    parameters=tuple(PARAMETERS),
    samplers=("ddim", "euler"),
    default_sampler="ddim",
    default_steps=1,
    max_steps=2,
    default_guidance_scale=7.5,
    max_guidance_scale=30.0,
    default_height=64,
    default_width=64,
    min_side=64,
    max_pixels=64 * 64,
    size_multiple=8,
    max_images=2,
    max_prompt_bytes=512,
    max_prompt_tokens=75,
    previews=True,
)


def api():
    found = json.loads(msgspec.json.encode(document(("shapes",), SMALL)))
    # Whatever host is made up here might exist.
    del found["components"]["schemas"]["JobRequest"]["properties"]["webhook_url"]
    checks = {
        # One field at a time is all that a schema tells; what contradicts another field, or is too late, is a 400.
        "positive_data_acceptance": {"expected-statuses": ["2xx", "304", "400", "401", "403", "404", "409"]},
    }
    config = SchemathesisConfig.from_dict({"seed": 5, "checks": checks})
    return schemathesis.openapi.from_dict(found, config=config)


schema = api()


@pytest.fixture(scope="module")
def small_edge(edge, start_edge, capabilities_file, tmp_path_factory):
    revision = json.loads(capabilities_file.read_bytes())["revision"]
    told = tmp_path_factory.mktemp("small") / "capabilities.json"
    told.write_bytes(msgspec.json.encode(msgspec.structs.replace(SMALL, revision=revision)))
    return start_edge(edge.predictor_url, capabilities=told)


@pytest.fixture(scope="module")
def secret(small_edge):
    return small_edge.key("--name", "schemathesis", "--scopes", "generate,read,admin")


@schema.parametrize()
@settings(
    max_examples=20,
    deadline=None,
    derandomize=True,
    database=None,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=list(HealthCheck),
)
def test_what_comes_back_is_what_is_documented(case, small_edge, secret):
    case.call_and_validate(base_url=small_edge.url, headers={"Authorization": f"Bearer {secret}"})
