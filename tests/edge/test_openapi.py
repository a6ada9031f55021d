"""The OpenAPI document: valid, complete, and made of the same tables as the code."""

import json
import re

import msgspec
import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from predictor.core import openai
from predictor.core.problems import PROBLEMS
from predictor.core.request import Capabilities
from predictor.edge.openapi import document


@pytest.fixture(scope="module")
def capabilities(capabilities_file) -> Capabilities:
    return msgspec.json.decode(capabilities_file.read_bytes(), type=Capabilities)


def as_sent(*arguments: object) -> dict:
    """As a client reads it: tuples are lists by then."""
    return json.loads(msgspec.json.encode(document(*arguments)))


def served_paths(routes) -> set[tuple[str, str]]:
    return {
        (re.sub(r":\w+}", "}", route.path), method.lower()) for route in routes for method in route.methods - {"HEAD"}
    }


def documented_paths(found: dict) -> set[tuple[str, str]]:
    return {(path, method) for path, item in found["paths"].items() for method in item}


@pytest.mark.parametrize("told", [True, False], ids=["the model is known", "the model is not known"])
def test_it_is_valid_openapi(capabilities, told):
    found = as_sent(("shapes", "gpt-image-1"), capabilities if told else None)
    OpenAPIV31SpecValidator(found).validate()
    assert found["openapi"].startswith("3.1")


async def test_every_route_is_in_it_and_nothing_else(tmp_path):

    from predictor.edge.app import application
    from predictor.edge.settings import EdgeSettings

    settings = EdgeSettings(predictor_url="http://127.0.0.1:9", data=str(tmp_path), metrics_port=0)
    async with application(settings) as app:
        assert served_paths(app.routes) == documented_paths(as_sent(("sd",), None))


def test_every_problem_that_a_client_can_meet_is_explained_under_its_status():
    found = as_sent(("shapes",), None)
    for dialect in ("openai", "v2"):
        for code, kind in PROBLEMS.items():
            answer = found["components"]["responses"][f"{dialect}-{kind.http}"]
            assert f"`{code}`: {kind.__doc__}" in answer["description"]
            assert code in json.dumps(answer["content"]["application/json"]["schema"])
    assert set(PROBLEMS) < set(
        found["components"]["schemas"]["Error"]["properties"]["error"]["properties"]["code"]["enum"]
    )


def test_fields_and_limits_are_those_of_the_code(capabilities):
    schemas = as_sent(("shapes", "gpt-image-1"), capabilities)["components"]["schemas"]
    for name, job in (("ImagesRequest", False), ("JobRequest", True)):
        known = {*openai.PLAIN, *openai.ALWAYS, *(openai.OF_JOBS if job else openai.OF_CONNECTIONS)}
        assert set(schemas[name]["properties"]) == known
        for field in known - {"prompt"}:
            # What the schema allows is what decoding allows: every field, as null.
            openai.decode(msgspec.json.encode({"prompt": "x", field: None}), ("shapes",), job=job)
    fields = schemas["ImagesRequest"]["properties"]
    assert fields["model"]["enum"] == ["shapes", "gpt-image-1", None]
    assert fields["n"]["maximum"] == capabilities.max_images
    assert fields["num_inference_steps"]["maximum"] == capabilities.max_steps
    assert fields["sampler"]["enum"] == [*capabilities.samplers, None]
    assert schemas["GenerateRequest"]["properties"].keys() == {"id", "parameters", *capabilities.parameters}


def test_sizes_that_were_compiled_are_all_that_it_allows(capabilities):
    compiled = msgspec.structs.replace(capabilities, sizes=((64, 128),))
    schemas = as_sent(("shapes",), compiled)["components"]["schemas"]
    assert schemas["ImagesRequest"]["properties"]["size"]["enum"] == ["auto", "128x64", None]


def test_the_edge_serves_it_to_anybody_with_the_limits_of_its_model(edge, capabilities):
    with edge.client() as client:
        reply = client.get("/openapi.json")
    assert reply.status_code == 200
    assert reply.headers["content-type"] == "application/json"
    assert reply.json() == as_sent(("shapes",), capabilities)
    assert reply.json()["servers"] == [{"url": "/"}]


def test_what_needs_no_key_says_so_and_the_rest_asks_for_one(edge):
    with edge.client() as client:
        for path, item in client.get("/openapi.json").json()["paths"].items():
            for method, operation in item.items():
                status = client.request(method, re.sub("{model}", "shapes", path)).status_code
                assert (status == 401) == ("security" not in operation), (method, path, status)
