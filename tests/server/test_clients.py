"""Clients that others wrote, unmodified."""

import base64
import json
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

with warnings.catch_warnings():
    # Old idioms of the clients' own imports.
    warnings.simplefilter("ignore")
    import tritonclient.grpc as triton_grpc
    import tritonclient.http as triton_http
    import tritonclient.http.aio as triton_aio

PROMPT = "a red circle"
PNG = b"\x89PNG"


def triton_inputs(kind):
    prompt = kind.InferInput("prompt", [1], "BYTES")
    prompt.set_data_from_numpy(np.array([PROMPT.encode()], object))
    seed = kind.InferInput("seed", [1], "INT64")
    seed.set_data_from_numpy(np.array([5], np.int64))
    return [prompt, seed]


def curl(*arguments):
    run = subprocess.run(["curl", "-sS", "--max-time", "20", *arguments], capture_output=True, check=True)
    return json.loads(run.stdout)


@pytest.mark.parametrize("headers", [(), ("-H", "content-type: application/json")], ids=["plain", "json"])
def test_curl(server, infer_body, headers):
    answer = curl(server.infer, *headers, "-d", json.dumps(infer_body(seed=5)))
    outputs = {item["name"]: item["data"] for item in answer["outputs"]}
    assert outputs["seed"] == [5]
    assert base64.b64decode(outputs["image"][0]).startswith(PNG)


def test_curl_streams_events(server):
    route = f"{server.url}/v2/models/sd/generate_stream"
    run = subprocess.run(["curl", "-sSN", route, "-d", '{"prompt": "red"}'], capture_output=True, check=True, text=True)
    assert [line for line in run.stdout.splitlines() if line.startswith("event")][-1] == "event: done"


def test_curl_is_told_at_once_that_its_body_is_too_large(server, tmp_path):
    (tmp_path / "body").write_bytes(b"x" * 2**22)
    assert curl(server.infer, "--data-binary", f"@{tmp_path / 'body'}")["code"] == "body_too_large"


def test_tritonclient_http(server):
    with triton_http.InferenceServerClient(f"127.0.0.1:{server.http_port}") as client:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("sd")
        assert client.get_model_metadata("sd")["name"] == "sd"
        answer = client.infer("sd", triton_inputs(triton_http), request_id="t1")
        assert answer.get_response()["id"] == "t1"
        assert answer.as_numpy("seed").tolist() == [5]
        assert base64.b64decode(answer.as_numpy("image")[0]).startswith(PNG)
        wanted = [triton_http.InferRequestedOutput("generated_image", binary_data=True)]
        pixels = client.infer("sd", triton_inputs(triton_http), outputs=wanted).as_numpy("generated_image")
        assert pixels.shape == (1, 64, 64, 3)
        assert np.unique(pixels) == [5]
        with pytest.raises(triton_http.InferenceServerException, match="steps: got 0; allowed: 1 to 150"):
            client.infer("sd", triton_inputs(triton_http), parameters={"steps": 0})


async def test_tritonclient_http_aio(server):
    async with triton_aio.InferenceServerClient(f"127.0.0.1:{server.http_port}") as client:
        assert await client.is_model_ready("sd")
        answer = await client.infer("sd", triton_inputs(triton_aio))
        assert base64.b64decode(answer.as_numpy("image")[0]).startswith(PNG)


def test_tritonclient_grpc(server):
    with triton_grpc.InferenceServerClient(server.grpc) as client:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("sd")
        described = client.get_model_metadata("sd", as_json=True)
        assert {"name": "prompt", "datatype": "BYTES", "shape": ["1"]} in described["inputs"]
        answer = client.infer("sd", triton_inputs(triton_grpc), request_id="t2", parameters={"steps": 3})
        assert answer.get_response().id == "t2"
        assert answer.as_numpy("steps").tolist() == [3]
        assert base64.b64decode(answer.as_numpy("image")[0]).startswith(PNG)
        assert answer.get_response().parameters["model_revision"].string_param == "fake-1"
        assert answer.get_response().parameters["server_timing"].string_param.startswith("queue;dur=1.0, ")
        wanted = [triton_grpc.InferRequestedOutput("generated_image")]
        pixels = client.infer("sd", triton_inputs(triton_grpc), outputs=wanted).as_numpy("generated_image")
        assert np.unique(pixels) == [5]


@pytest.mark.parametrize(
    ("call", "status", "details"),
    [
        ({"parameters": {"steps": 0}}, "INVALID_ARGUMENT", "invalid_field: steps: got 0; allowed: 1 to 150"),
        ({"parameters": {"guidance_scale": 2.5}}, "INVALID_ARGUMENT", "guidance_scale: got a parameter of a type"),
        ({"model_version": "1"}, "NOT_FOUND", "not_found: version: got '1'"),
        ({"model_name": "other"}, "NOT_FOUND", "other"),
        ({"prompt": b"oom"}, "RESOURCE_EXHAUSTED", "out_of_memory: no memory left (retry after 3 s)"),
        ({"prompt": b"\xff\xfe"}, "INVALID_ARGUMENT", "prompt: got no UTF-8"),
    ],
    ids=["field", "double", "version", "model", "memory", "bytes"],
)
def test_grpc_problems_have_their_own_status(server, call, status, details):
    call = {"model_name": "sd", "prompt": PROMPT.encode()} | call
    prompt = triton_grpc.InferInput("prompt", [1], "BYTES")
    prompt.set_data_from_numpy(np.array([call.pop("prompt")], object))
    with triton_grpc.InferenceServerClient(server.grpc) as client:
        with pytest.raises(triton_grpc.InferenceServerException) as caught:
            client.infer(inputs=[prompt], **call)
        assert caught.value.status() == f"StatusCode.{status}"
        assert details in caught.value.message()


@pytest.mark.parametrize("verb", ["load_model", "unload_model"])
def test_grpc_may_not_take_the_model_away(server, verb):
    with triton_grpc.InferenceServerClient(server.grpc) as client:
        with pytest.raises(triton_grpc.InferenceServerException) as caught:
            getattr(client, verb)("sd")
        assert caught.value.status() in {"StatusCode.PERMISSION_DENIED", "StatusCode.UNIMPLEMENTED"}
        assert client.is_model_ready("sd")


def test_a_grpc_call_that_is_cancelled_frees_its_rows(server, until):
    before = len(server.engine_notes)
    prompt = triton_grpc.InferInput("prompt", [1], "BYTES")
    prompt.set_data_from_numpy(np.array([b"hold"], object))
    with triton_grpc.InferenceServerClient(server.grpc) as client:
        call = client.async_infer("sd", [prompt], callback=lambda result, error: None)
        until(lambda: len(server.engine_notes) > before)
        id = server.engine_notes[-1].removeprefix("generate ")
        call.cancel()
        until(lambda: f"cancel {id}" in server.engine_notes)


def test_a_grpc_deadline_frees_its_rows(server, until):
    prompt = triton_grpc.InferInput("prompt", [1], "BYTES")
    prompt.set_data_from_numpy(np.array([b"hold"], object))
    with triton_grpc.InferenceServerClient(server.grpc) as client:
        with pytest.raises(triton_grpc.InferenceServerException) as caught:
            client.infer("sd", [prompt], client_timeout=0.3)
        assert caught.value.status() == "StatusCode.DEADLINE_EXCEEDED"
    id = [note for note in server.engine_notes if note.startswith("generate")][-1].removeprefix("generate ")
    until(lambda: f"cancel {id}" in server.engine_notes)


@pytest.fixture(scope="module")
def kserve_clients(server):
    script = Path(__file__).with_name("kserve_clients.py")
    run = subprocess.run([sys.executable, script, server.url, server.grpc], capture_output=True, check=True)
    return json.loads(run.stdout)


@pytest.mark.parametrize(("client", "id"), [("json", "k1"), ("binary", "k1"), ("grpc", "k2")])
def test_the_kserve_clients(kserve_clients, client, id):
    answer = kserve_clients[client]
    assert answer["ready"] == [True, True]
    assert answer["id"] == id
    assert answer["seed"] == [5]
    assert base64.b64decode(answer["image"]).startswith(PNG)


def test_the_kserve_grpc_client_is_refused_without_a_prompt(kserve_clients):
    assert kserve_clients["grpc"]["refused"] == "INVALID_ARGUMENT"
