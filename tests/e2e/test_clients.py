"""Clients that others wrote, unmodified, through the real ingress; each of them wakes the predictor."""

import base64
import json
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import httpx
import numpy as np
import openai
import pytest

from tests.e2e.asking import PATIENCE, SQUARE, decode
from tests.e2e.cluster import eventually
from tests.e2e.release import MODEL, Release, model

with warnings.catch_warnings():
    # Old idioms of the clients' own imports.
    warnings.simplefilter("ignore")
    import tritonclient.grpc as triton_grpc
    import tritonclient.http as triton_http

KSERVE = Path(__file__).with_name("services") / "kserve_client.py"
DRAWN = {"seed": 21, "steps": 10}


@pytest.fixture(scope="module")
def grpc_release(new_release: Callable[..., Release]) -> Release:
    """A model without an edge: the predictor alone, over gRPC, for everybody."""
    grpc = model(protocol="grpc", visibility="public", unauthenticated=True, capabilities="")
    release = new_release("grpc", models=[grpc])
    release.install()
    return release


@pytest.fixture
def at_zero(release: Release) -> None:
    eventually(lambda: not release.pods("predictor"), 300, "zero pods")


def assert_right(base64_png: str | bytes) -> None:
    SQUARE.assert_in(decode(base64.b64decode(base64_png)))


def test_openai_sdk(release: Release, at_zero: None) -> None:
    way = release.way()
    with openai.OpenAI(
        base_url=f"{way.url}/v1", api_key=release.first_key(), default_headers=way.headers, timeout=PATIENCE
    ) as client:
        answer = client.images.generate(prompt=SQUARE.prompt, extra_body={"seed": 21, "num_inference_steps": 10})
    assert_right(answer.data[0].b64_json)


def test_openai_sdk_streams_while_a_pod_starts(release: Release, at_zero: None) -> None:
    way = release.way()
    with openai.OpenAI(
        # Five silent seconds would end it; heartbeats come each second.
        base_url=f"{way.url}/v1",
        api_key=release.first_key(),
        default_headers=way.headers,
        timeout=httpx.Timeout(PATIENCE, read=5.0),
    ) as client:
        extensions = {"seed": 22, "num_inference_steps": 10}
        stream = client.images.generate(prompt=SQUARE.prompt, stream=True, partial_images=0, extra_body=extensions)
        (done,) = [event for event in stream if event.type == "image_generation.completed"]
    assert_right(done.b64_json)


def test_openai_sdk_raises_its_own_errors(release: Release) -> None:
    way = release.way()
    client = openai.OpenAI(base_url=f"{way.url}/v1", api_key="sk-wrong", default_headers=way.headers)
    with client, pytest.raises(openai.AuthenticationError):
        client.images.generate(prompt=SQUARE.prompt)


def prompt(kind):
    tensor = kind.InferInput("prompt", [1], "BYTES")
    tensor.set_data_from_numpy(np.array([SQUARE.prompt.encode()], object))
    return tensor


def test_tritonclient_over_http(release: Release, at_zero: None) -> None:
    way = release.way()
    headers = {**way.headers, "Authorization": f"Bearer {release.first_key()}"}
    with triton_http.InferenceServerClient(way.address, network_timeout=PATIENCE) as client:
        answer = client.infer(MODEL, [prompt(triton_http)], parameters=DRAWN | {"seed": 23}, headers=headers)
    assert_right(answer.as_numpy("image")[0])


def test_tritonclient_over_grpc(grpc_release: Release) -> None:
    eventually(lambda: not grpc_release.pods("predictor"), 300, "zero pods")
    way = grpc_release.way(component="predictor")
    authority = [("grpc.default_authority", way.host)]
    with triton_grpc.InferenceServerClient(way.address, channel_args=authority) as client:
        answer = client.infer(MODEL, [prompt(triton_grpc)], parameters=DRAWN, client_timeout=PATIENCE)
    assert_right(answer.as_numpy("image")[0])


def test_kserve_client_over_http(release: Release, at_zero: None) -> None:
    way = release.way()
    assert_right(kserve_client("rest", way.url, way.host, MODEL, release.first_key())["image"])


def test_kserve_client_over_grpc(grpc_release: Release) -> None:
    way = grpc_release.way(component="predictor")
    assert_right(kserve_client("grpc", way.address, way.host, MODEL)["image"])


def kserve_client(*arguments: str) -> dict[str, str]:
    ended = subprocess.run([sys.executable, KSERVE, *arguments], capture_output=True, text=True, timeout=600)
    assert ended.returncode == 0, ended.stderr
    answer: dict[str, str] = json.loads(ended.stdout)
    assert answer["id"] == "k1"
    return answer
