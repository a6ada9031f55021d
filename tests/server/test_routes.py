"""The REST routes as a client sees them."""

import base64
import io
import json
import struct

import msgspec
import numpy as np
import pytest
from PIL import Image

from predictor.core.request import Capabilities
from tests.server.fake_engine import CAPABILITIES


def decoded(text: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(text))))


def outputs(reply) -> dict[str, list]:
    return {item["name"]: item["data"] for item in reply.json()["outputs"]}


def events(reply) -> list[tuple[str, dict]]:
    found = []
    for block in reply.text.strip().split("\n\n"):
        event, data = block.split("\n")
        found.append((event.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    return found


def test_infer_answers_with_pictures_and_the_effective_parameters(server, http, infer_body):
    reply = http.post(server.infer, json={"id": "mine", **infer_body(seed=7, num_images=2, steps=3, height=72)})
    assert reply.status_code == 200
    body, found = reply.json(), outputs(reply)
    assert (body["model_name"], body["id"]) == ("sd", "mine")
    assert found["seed"] == [7, 8]
    assert {name: found[name] for name in ("steps", "height", "width", "sampler", "num_images", "guidance_scale")} == {
        "steps": [3],
        "height": [72],
        "width": [64],
        "sampler": ["euler"],
        "num_images": [2],
        "guidance_scale": [7.5],
    }
    assert found["prompt_tokens"] == [9]
    first, second = map(decoded, found["image"])
    assert first.shape == (72, 64, 3)
    assert (np.unique(first), np.unique(second)) == ([7], [8])
    assert body["parameters"]["model_revision"] == "fake-1"
    assert len(body["parameters"]["fingerprint"]) == 64
    assert all(isinstance(value, str | int | float | bool) for value in body["parameters"].values())


def test_only_the_named_outputs_come(server, http, infer_body):
    reply = http.post(server.infer, json=infer_body(seed=1) | {"outputs": [{"name": "seed"}]})
    assert outputs(reply) == {"seed": [1]}


def test_the_same_seed_has_one_fingerprint_and_a_drawn_seed_is_reported(server, http, infer_body):
    first, again, drawn = (http.post(server.infer, json=infer_body(**p)).json() for p in ({"seed": 3}, {"seed": 3}, {}))
    assert first["parameters"]["fingerprint"] == again["parameters"]["fingerprint"]
    assert first["parameters"]["fingerprint"] != drawn["parameters"]["fingerprint"]


@pytest.mark.parametrize(("form", "magic"), [("png", b"\x89PNG"), ("webp", b"RIFF"), ("jpeg", b"\xff\xd8\xff")])
def test_each_image_format(server, http, infer_body, form, magic):
    reply = http.post(server.infer, json=infer_body(image_format=form, seed=9))
    assert base64.b64decode(outputs(reply)["image"][0]).startswith(magic)


def test_raw_pixels_come_through_the_binary_extension(server, http, infer_body):
    wanted = {"outputs": [{"name": "generated_image", "parameters": {"binary_data": True}}, {"name": "seed"}]}
    reply = http.post(server.infer, json=infer_body(seed=5, num_images=2) | wanted)
    assert reply.headers["content-type"] == "application/octet-stream"
    length = int(reply.headers["Inference-Header-Content-Length"])
    pixels, seed = json.loads(reply.content[:length])["outputs"]
    assert pixels["shape"] == [2, 64, 64, 3]
    assert seed["data"] == [5, 6]
    raw = np.frombuffer(reply.content[length:], np.uint8).reshape(pixels["shape"])
    assert (np.unique(raw[0]), np.unique(raw[1])) == ([5], [6])


def test_a_binary_prompt(server, http):
    blob = struct.pack("<I", 3) + b"red"
    prompt = {"name": "prompt", "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": len(blob)}}
    head = json.dumps({"inputs": [prompt], "outputs": [{"name": "prompt_tokens"}]}).encode()
    reply = http.post(server.infer, content=head + blob, headers={"Inference-Header-Content-Length": str(len(head))})
    assert outputs(reply) == {"prompt_tokens": [3]}


def test_server_timing_names_the_stages_in_milliseconds(server, http, infer_body):
    reply = http.post(server.infer, json=infer_body())
    names = [part.split(";dur=")[0] for part in reply.headers["server-timing"].split(", ")]
    assert names[:6] == ["queue", "encode", "denoise", "decode", "pack", "total"]
    assert "denoise;dur=10.0" in reply.headers["server-timing"]


def test_the_first_request_alone_is_a_cold_start_and_carries_its_phases(start, http, infer_body):
    fresh = start()
    first, second = (http.post(fresh.infer, json=infer_body()) for _ in range(2))
    assert first.headers["x-sdzero-cold-start"] == "true"
    assert first.json()["parameters"]["cold_start"] is True
    assert "cold-engine-weights_read;dur=" in first.headers["server-timing"]
    assert "cold-server-imports;dur=" in first.headers["server-timing"]
    assert second.headers["x-sdzero-cold-start"] == "false"
    assert second.json()["parameters"]["cold_start"] is False
    assert "cold-" not in second.headers["server-timing"]
    names = [(phase["process"], phase["name"]) for phase in http.get(f"{fresh.url}/timeline").json()["phases"]]
    assert names.index(("engine", "weights_read")) < names.index(("server", "engine_ready"))
    assert names[-2:] == [("server", "first_request"), ("server", "first_image")]


def test_the_capabilities_are_the_engines_own(server, http):
    reply = http.get(f"{server.url}/v2/models/sd/capabilities")
    assert reply.status_code == 200
    assert msgspec.json.decode(reply.content, type=Capabilities) == CAPABILITIES
    assert http.get(f"{server.url}/v2/models/other/capabilities").json()["code"] == "not_found"


def test_generate_is_flat_in_and_out(server, http):
    reply = http.post(
        f"{server.url}/v2/models/sd/generate", json={"id": "g", "prompt": "red", "parameters": {"seed": 4}}
    )
    assert reply.status_code == 200
    body = reply.json()
    assert (body["id"], body["model_name"], body["seed"], body["steps"]) == ("g", "sd", [4], 4)
    assert np.unique(decoded(body["image"][0])) == [4]
    assert body["parameters"]["cold_start"] in (True, False)


def test_the_stream_tells_every_step_in_order_and_ends_with_the_same_answer(server, http):
    asked = {"prompt": "red", "seed": 4, "steps": 5, "id": "s"}
    reply = http.post(f"{server.url}/v2/models/sd/generate_stream", json=asked)
    assert reply.headers["content-type"].startswith("text/event-stream")
    found = events(reply)
    assert [name for name, _ in found] == ["accepted", *["progress"] * 5, "done"]
    assert found[0][1] == {"id": "s", "prompt_tokens": 3, "negative_prompt_tokens": 2}
    assert [(data["step"], data["steps"]) for _, data in found[1:-1]] == [(step, 5) for step in range(1, 6)]
    assert not any("previews" in data for _, data in found)
    plain = http.post(f"{server.url}/v2/models/sd/generate", json=asked).json()
    assert found[-1][1].keys() == plain.keys()
    assert found[-1][1]["image"] == plain["image"]


def test_previews_come_with_each_step_when_asked_for(server, http):
    asked = {"prompt": "red", "steps": 3, "num_images": 2, "previews": True}
    found = events(http.post(f"{server.url}/v2/models/sd/generate_stream", json=asked))
    previews = [[np.unique(decoded(one))[0] for one in data["previews"]] for name, data in found if name == "progress"]
    assert previews == [[1, 1], [2, 2], [3, 3]]


def test_a_stream_that_the_engine_refuses_is_a_plain_error(server, http):
    reply = http.post(f"{server.url}/v2/models/sd/generate_stream", json={"prompt": "oom"})
    assert reply.status_code == 503
    assert reply.headers["retry-after"] == "3"
    assert reply.json()["code"] == "out_of_memory"


def test_a_temporary_problem_says_when_to_come_back(server, http, infer_body):
    reply = http.post(server.infer, json=infer_body("oom"))
    assert reply.status_code == 503
    assert reply.headers["retry-after"] == "3"
    assert reply.headers["x-should-retry"] == "true"
    assert reply.json() == {"error": "no memory left", "code": "out_of_memory", "retry_after": 3}


def test_metadata_lists_every_tensor_with_its_limits(server, http):
    body = http.get(f"{server.url}/v2/models/sd").json()
    inputs = {item["name"]: item for item in body["inputs"]}
    assert inputs["steps"] == {
        "name": "steps",
        "datatype": "INT32",
        "shape": [1],
        "parameters": {"meaning": "denoising steps", "minimum": 1, "maximum": 150, "default": 4},
    }
    assert inputs["sampler"]["parameters"]["allowed"] == "ddim, euler"
    assert {item["name"] for item in body["outputs"]} >= {"image", "generated_image", "seed", "prompt_tokens"}


def test_the_callers_request_id_comes_back_if_it_is_sane(server, http, infer_body):
    assert (
        http.post(server.infer, json=infer_body(), headers={"x-request-id": "trace-1"}).headers["x-request-id"]
        == "trace-1"
    )
    odd = http.get(f"{server.url}/v2/health/live", headers={"x-request-id": 'a"b c'}).headers["x-request-id"]
    assert odd.isalnum()


def test_server_metadata_names_the_extensions(server, http):
    assert http.get(f"{server.url}/v2").json()["extensions"] == ["binary_tensor_data", "generate"]


def test_kserves_own_routes_tell_the_truth_as_well(server, http):
    assert http.get(f"{server.url}/v1/models/sd").json() == {"name": "sd", "ready": True}
    assert http.get(f"{server.url}/v2/models").json() == {"models": ["sd"]}
