"""Clients of the v2 protocol, unmodified: through the edge they get what the predictor itself would answer."""

import base64
import json
import subprocess
import sys
import warnings
from pathlib import Path

import httpx
import numpy as np
import pytest

with warnings.catch_warnings():
    # Old idioms of the clients' own imports.
    warnings.simplefilter("ignore")
    import tritonclient.http as triton
    import tritonclient.http.aio as triton_aio

PROMPT = "a red circle"
SMALL = {"steps": 4, "height": 64, "width": 64}
PLAIN = {"prompt": PROMPT, "seed": 21, **SMALL}


@pytest.fixture(scope="module")
def own(edge):
    """What the predictor answers without an edge: the file of its picture."""
    return base64.b64decode(
        httpx.post(f"{edge.predictor_url}/v2/models/shapes/generate", json=PLAIN, timeout=60).json()["image"][0]
    )


@pytest.fixture
def headers(key):
    """Fresh for every test, because tritonclient writes its own headers into what it is given."""
    return {"Authorization": f"Bearer {key}"}


@pytest.fixture(scope="module")
def client(edge):
    with triton.InferenceServerClient(edge.url.removeprefix("http://"), network_timeout=60) as client:
        yield client


def prompt(kind, *, binary=True):
    tensor = kind.InferInput("prompt", [1], "BYTES")
    tensor.set_data_from_numpy(np.array([PROMPT.encode()], object), binary_data=binary)
    return tensor


def seed(kind):
    tensor = kind.InferInput("seed", [1], "INT64")
    tensor.set_data_from_numpy(np.array([21], np.int64))
    return tensor


def test_tritonclient_needs_no_key_to_see_that_the_edge_is_there(client):
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("shapes")
    assert client.get_server_metadata()["name"] == "sdzero"


def test_tritonclient_sees_the_models_own_description(client, edge, headers):
    own = httpx.get(f"{edge.predictor_url}/v2/models/shapes").json()
    assert client.get_model_metadata("shapes", headers=headers) == own


@pytest.mark.parametrize("binary", [True, False], ids=["binary", "json"])
def test_tritonclient_gets_the_predictors_picture(client, headers, own, pixels, binary):
    wanted = [triton.InferRequestedOutput(name, binary_data=binary) for name in ("image", "seed")]
    answer = client.infer(
        "shapes",
        [prompt(triton, binary=binary), seed(triton)],
        request_id="t1",
        outputs=wanted,
        parameters=SMALL,
        headers=headers,
    )
    assert answer.get_response()["id"] == "t1"
    assert answer.as_numpy("seed").tolist() == [21]
    assert np.array_equal(pixels(base64.b64decode(answer.as_numpy("image")[0])), pixels(own))


def test_tritonclient_gets_raw_pixels_over_the_binary_extension(client, headers, own, pixels):
    wanted = [triton.InferRequestedOutput("generated_image", binary_data=True)]
    answer = client.infer("shapes", [prompt(triton), seed(triton)], outputs=wanted, parameters=SMALL, headers=headers)
    raw = answer.as_numpy("generated_image")
    assert (raw.shape, raw.dtype) == ((1, 64, 64, 3), np.uint8)
    assert np.array_equal(raw[0], pixels(own))


def test_raw_pixels_are_refused_in_json(client, headers):
    wanted = [triton.InferRequestedOutput("generated_image", binary_data=False)]
    with pytest.raises(triton.InferenceServerException, match="generated_image"):
        client.infer("shapes", [prompt(triton)], outputs=wanted, parameters=SMALL, headers=headers)


@pytest.mark.parametrize(
    ("change", "status", "message"),
    [
        ({"headers": {}}, "401", "key"),
        ({"parameters": {"steps": 0}}, "400", "steps: got 0; allowed: 1 to 150"),
        ({"model_name": "other"}, "404", "model: got 'other'; allowed: shapes"),
        ({"model_version": "1"}, "404", "version: got '1'"),
    ],
    ids=["key", "field", "model", "version"],
)
def test_tritonclient_is_refused_with_the_reason(client, headers, change, status, message):
    with pytest.raises(triton.InferenceServerException) as caught:
        client.infer(**{"model_name": "shapes", "inputs": [prompt(triton)], "headers": headers} | change)
    assert caught.value.status() == status
    assert message in caught.value.message()


def test_nobody_loads_or_unloads(client, edge, headers):
    admin = {"Authorization": f"Bearer {edge.key('--name', 'root', '--scopes', 'admin')}"}
    for one in (headers, admin):
        with pytest.raises(triton.InferenceServerException) as caught:
            client.unload_model("shapes", headers=one)
        assert caught.value.status() == "403"
    assert client.is_model_ready("shapes")


async def test_tritonclient_aio(edge, headers, own, pixels):
    async with triton_aio.InferenceServerClient(edge.url.removeprefix("http://")) as client:
        answer = await client.infer("shapes", [prompt(triton_aio), seed(triton_aio)], parameters=SMALL, headers=headers)
        assert np.array_equal(pixels(base64.b64decode(answer.as_numpy("image")[0])), pixels(own))


@pytest.fixture(scope="module")
def kserve(edge, key):
    script = Path(__file__).with_name("v2_kserve.py")
    run = subprocess.run([sys.executable, script, edge.url, key], capture_output=True, check=True)
    return json.loads(run.stdout)


@pytest.mark.parametrize("encoding", ["json", "binary"])
def test_the_kserve_client_gets_the_predictors_picture(kserve, own, pixels, encoding):
    answer = kserve[encoding]
    assert (answer["id"], answer["seed"]) == ("k1", [21])
    assert np.array_equal(pixels(answer["image"]), pixels(own))


def test_the_kserve_client_needs_a_key_only_to_draw(kserve):
    assert kserve["ready"] == [True, True]
    assert kserve["refused"] == 401


def flat(reply):
    """A reply of the generate extension without what differs between two runs."""
    told = {"cold_start", "cached", "gpu_seconds", "server_timing", "fingerprint"}
    body = reply if isinstance(reply, dict) else reply.json()
    parameters = {name: value for name, value in body["parameters"].items() if name not in told}
    return body | {"parameters": parameters, "image": None, "id": None}


def test_generate_answers_as_the_predictor_does(edge, headers, own, pixels):
    direct = httpx.post(f"{edge.predictor_url}/v2/models/shapes/generate", json=PLAIN, timeout=60)
    through = httpx.post(f"{edge.url}/v2/models/shapes/generate", json=PLAIN, headers=headers, timeout=60)
    assert flat(through) == flat(direct)
    assert np.array_equal(pixels(through.json()["image"][0]), pixels(own))


def events(text):
    """Names and data of a stream's events."""
    found = []
    for block in text.split("\n\n"):
        lines = [line for line in block.splitlines() if line and not line.startswith(":")]
        if lines:
            fields = dict(line.split(": ", 1) for line in lines)
            found.append((fields["event"], json.loads(fields["data"])))
    return found


def test_generate_stream_tells_and_ends_as_the_predictor_does(edge, headers, pixels):
    body = PLAIN | {"seed": 22, "previews": True}
    direct, through = (
        events(httpx.post(f"{url}/v2/models/shapes/generate_stream", json=body, headers=headers, timeout=60).text)
        for url in (edge.predictor_url, edge.url)
    )
    steps = [data for name, data in through if name == "progress"]
    assert [data["step"] for data in steps] == [data["step"] for name, data in direct if name == "progress"]
    assert [data["previews"] for data in steps] == [data["previews"] for name, data in direct if name == "progress"]
    assert {name for name, _ in through} <= {"queued", "waking", "accepted", "progress", "done"}
    (name, end), (_, own) = through[-1], direct[-1]
    assert name == "done"
    assert flat(end) == flat(own)
    assert np.array_equal(pixels(end["image"][0]), pixels(own["image"][0]))
