"""Bad input over HTTP: a 4xx in the v2 error shape that names the field, what came and what is allowed."""

import json
import socket
from collections.abc import Iterator

import httpx
import pytest


def tensor(name, data, datatype="BYTES", shape=None):
    return {"name": name, "datatype": datatype, "shape": shape or [len(data)], "data": data}


PROMPT = tensor("prompt", ["a red circle"])


def asked(*more, **parameters):
    return json.dumps({"inputs": [PROMPT, *more], "parameters": parameters}).encode()


FIELDS = {
    "wrong datatype": (asked(tensor("steps", [4.0], "FP32")), "steps", "FP32"),
    "wrong type in JSON": (asked(tensor("steps", ["4"], "INT32")), "steps", "'4'"),
    "wrong shape": (asked(tensor("seed", [1, 2], "INT64")), "seed", "[2]"),
    "shape and data differ": (asked(tensor("seed", [1, 2], "INT64", [3])), "seed", "2 elements"),
    "negative shape": (asked(tensor("seed", [1], "INT64", [-1])), "seed", "[-1]"),
    "missing prompt": (json.dumps({"inputs": [tensor("steps", [4], "INT32")]}).encode(), "prompt", "missing"),
    "no inputs at all": (json.dumps({"inputs": []}).encode(), "prompt", "missing"),
    "another model's name": (asked()[:-1] + b', "model_name": "sdxl"}', "model_name", "allowed: sd"),
    "two prompts": (asked(PROMPT), "prompt", "two tensors"),
    "contradiction": (asked(tensor("steps", [4], "INT32"), steps=5), "steps", "4 as an input and 5 as a parameter"),
    "unknown parameter": (asked(cfg=7), "cfg", "no such parameter"),
    "unknown tensor": (asked(tensor("scheduler", ["euler"])), "scheduler", "prompt, negative_prompt"),
    "unknown sampler": (asked(sampler="heun"), "sampler", "ddim, euler"),
    "steps 0": (asked(steps=0), "steps", "1 to 150"),
    "steps 10000": (asked(steps=10000), "steps", "1 to 150"),
    "steps true": (asked(steps=True), "steps", "a whole number"),
    "not a multiple": (asked(height=100), "height", "multiples of 8"),
    "too large": (asked(width=8192), "width", "8192"),
    "too many pixels": (asked(height=1024, width=1024), "height and width", "262144"),
    "guidance NaN": (asked(tensor("guidance_scale", ["nan"], "FP32")), "guidance_scale", "'nan'"),
    "guidance too high": (asked(guidance_scale=31.0), "guidance_scale", "1 to 30"),
    "seed negative": (asked(seed=-1), "seed", "-1"),
    "seed too large": (asked(seed=2**53), "seed", str(2**53)),
    "num_images 0": (asked(num_images=0), "num_images", "1 to 8"),
    "num_images 1000": (asked(num_images=1000), "num_images", "1 to 8"),
    "empty prompt": (asked().replace(b"a red circle", b""), "prompt", "not empty"),
    "100 kB prompt": (asked().replace(b"a red circle", b"red " * 25_000), "prompt", "100000 bytes"),
    "too many tokens": (asked().replace(b"a red circle", b"long"), "prompt", "99 tokens"),
    "unknown output": (asked()[:-1] + b', "outputs": [{"name": "picture"}]}', "outputs", "generated_image"),
    "pixels in JSON": (
        asked()[:-1] + b', "outputs": [{"name": "generated_image"}]}',
        "outputs: generated_image",
        "binary_data true",
    ),
    "quality of a png": (asked(image_quality=50), "image_quality", "only with image_format jpeg"),
}
BODIES = {
    "broken JSON": b'{"inputs": [',
    "empty body": b"",
    "not an object": b"[1, 2]",
    "unknown key": b'{"inputs": [], "input": []}',
    "not UTF-8": asked().replace(b"a red circle", b"\xff\xfe"),
    "NaN in JSON": asked(guidance_scale=2).replace(b": 2}", b": NaN}"),
    "nested parameters": asked(steps={"deep": 1}),
    "list bomb": b'{"inputs": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "object bomb": b'{"inputs":' * 50_000 + b"1" + b"}" * 50_000,
    "bomb in data": asked().replace(b'["a red circle"]', b"[" * 900 + b'"x"' + b"]" * 900, 1)[:-1],
    "element cut short": b'{"inputs":[{"name":"prompt","shape":[1],"datatype":"BYTES"}]}',
}


def problem(reply: httpx.Response) -> dict[str, object]:
    assert reply.headers["content-type"] == "application/json"
    assert reply.headers["x-should-retry"] == "false"
    assert "retry-after" not in reply.headers
    assert reply.headers["x-request-id"]
    body = reply.json()
    assert body.keys() <= {"error", "code", "field"}
    assert isinstance(body["error"], str)
    return body


@pytest.fixture(autouse=True)
def still_up(server, http) -> Iterator[None]:
    yield
    assert http.get(f"{server.url}/v2/models/sd/ready").status_code == 200


@pytest.mark.parametrize(("body", "field", "text"), FIELDS.values(), ids=FIELDS)
def test_a_bad_field_is_named_with_what_came_and_what_is_allowed(server, http, body, field, text):
    reply = http.post(server.infer, content=body)
    assert reply.status_code == 400
    refused = problem(reply)
    assert refused["code"] == "invalid_field"
    assert str(refused["field"]) in field
    assert str(refused["error"]).startswith(field)
    assert text in str(refused["error"])


@pytest.mark.parametrize("route", ["infer", "generate", "generate_stream"])
@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_a_body_that_is_no_request_is_refused(server, http, body, route):
    reply = http.post(f"{server.url}/v2/models/sd/{route}", content=body)
    assert reply.status_code == 400
    assert problem(reply)["code"] in {"invalid_request", "invalid_field"}


@pytest.mark.parametrize(
    ("body", "field"), [({"text_input": "x"}, "text_input"), ({"prompt": "x", "steps": 0}, "steps"), ({}, "prompt")]
)
@pytest.mark.parametrize("route", ["generate", "generate_stream"])
def test_generate_refuses_alike_and_with_a_status_even_when_streaming(server, http, body, field, route):
    reply = http.post(f"{server.url}/v2/models/sd/{route}", json=body)
    assert reply.status_code == 400
    assert problem(reply)["field"] == field


@pytest.mark.parametrize("kind", ["text/html", "multipart/form-data; boundary=x", "text/plain", "application/xml"])
def test_other_content_types_are_refused(server, http, infer_body, kind):
    reply = http.post(server.infer, content=json.dumps(infer_body()), headers={"content-type": kind})
    assert reply.status_code == 415
    refused = problem(reply)
    assert refused["code"] == "unsupported_media"
    assert kind.partition(";")[0] in refused["error"]
    assert "application/json" in refused["error"]


@pytest.mark.parametrize(
    "headers",
    [{"content-encoding": "gzip"}, {"content-type": "application/json; charset=latin-1"}],
    ids=["compressed", "charset"],
)
def test_bodies_that_would_be_misread_are_refused(server, http, infer_body, headers):
    assert http.post(server.infer, content=json.dumps(infer_body()), headers=headers).status_code == 415


@pytest.mark.parametrize(
    "kind", [None, "application/json", "application/octet-stream", "application/x-www-form-urlencoded"]
)
def test_the_types_that_clients_send_are_read(server, http, infer_body, kind):
    headers = {"content-type": kind} if kind else {}
    assert http.post(server.infer, content=json.dumps(infer_body()).encode(), headers=headers).status_code == 200


@pytest.mark.parametrize("length", ["abc", "-1", "1e3", "99999", "0", "3", "٣", "9" * 500])
def test_a_garbled_header_length_is_refused(server, http, infer_body, length):
    headers = {"Inference-Header-Content-Length": length.encode()}
    reply = http.post(server.infer, content=json.dumps(infer_body()), headers=headers)
    assert reply.status_code == 400
    problem(reply)


def test_a_missing_header_length_is_refused(server, http):
    head = {"inputs": [{"name": "prompt", "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": 9}}]}
    reply = http.post(server.infer, content=json.dumps(head).encode() + b"\5\0\0\0circle")
    assert reply.status_code == 400
    problem(reply)


def test_a_binary_prompt_that_is_not_utf8_is_refused(server, http):
    head = {"inputs": [{"name": "prompt", "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": 6}}]}
    content = json.dumps(head).encode()
    headers = {"Inference-Header-Content-Length": str(len(content))}
    reply = http.post(server.infer, content=content + b"\2\0\0\0\xff\xfe", headers=headers)
    assert reply.status_code == 400
    assert problem(reply)["field"] == "prompt"


def test_a_declared_oversized_body_is_refused_before_it_is_sent(server):
    # Nothing of the body ever comes, so an answer means that nobody waited for it.
    with socket.create_connection(("127.0.0.1", server.http_port), 10) as raw:
        raw.sendall(b"POST /v2/models/sd/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 2097152\r\n\r\n")
        assert raw.recv(100).startswith(b"HTTP/1.1 413")


def test_an_oversized_chunked_body_is_refused_while_it_is_read(server, http):
    reply = http.post(server.infer, content=(b"x" * 65536 for _ in range(20)))
    assert reply.status_code == 413
    refused = problem(reply)
    assert refused["code"] == "body_too_large"
    assert "1048576" in refused["error"]


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("models/sdxl/infer", "allowed: sd"),
        ("models/sd/versions/1/infer", "version: got '1'"),
        ("models/sdxl/generate", "allowed: sd"),
        ("models/sd/unknown", "no such route"),
    ],
)
def test_an_unknown_model_version_or_route_is_not_found(server, http, infer_body, path, text):
    reply = http.post(f"{server.url}/v2/{path}", json=infer_body())
    assert reply.status_code == 404
    refused = problem(reply)
    assert refused["code"] == "not_found"
    assert text in refused["error"]


@pytest.mark.parametrize(
    "path", ["models/sdxl", "models/sdxl/ready", "models/sd/versions/2", "models/sd/versions/2/ready"]
)
def test_metadata_and_readiness_of_an_unknown_model_are_not_found(server, http, path):
    reply = http.get(f"{server.url}/v2/{path}")
    assert reply.status_code == 404
    problem(reply)


def test_a_wrong_method_is_refused_in_the_same_shape(server, http):
    reply = http.get(server.infer)
    assert reply.status_code == 405
    assert reply.headers["allow"] == "POST"
    problem(reply)


def test_a_query_parameter_is_not_silently_ignored(server, http, infer_body):
    reply = http.post(f"{server.infer}?steps=3", json=infer_body())
    assert reply.status_code == 400
    assert "steps" in problem(reply)["error"]


@pytest.mark.parametrize("verb", ["load", "unload"])
def test_the_model_repository_is_closed(server, http, verb):
    reply = http.post(f"{server.url}/v2/repository/models/sd/{verb}", json={})
    assert reply.status_code == 403
    assert problem(reply)["code"] == "closed"


@pytest.mark.parametrize("verb", ["predict", "explain"])
def test_the_v1_protocol_is_refused_with_the_way_out(server, http, verb):
    reply = http.post(f"{server.url}/v1/models/sd:{verb}", json={"instances": [1]})
    assert reply.status_code == 400
    assert "/v2/models/sd/infer" in problem(reply)["error"]


def test_an_engines_refusal_of_previews_with_the_wrong_type(server, http):
    reply = http.post(f"{server.url}/v2/models/sd/generate_stream", json={"prompt": "x", "previews": "yes"})
    assert reply.status_code == 400
    assert problem(reply)["field"] == "previews"


def test_previews_are_no_parameter_where_nothing_streams(server, http):
    reply = http.post(f"{server.url}/v2/models/sd/generate", json={"prompt": "x", "previews": True})
    assert reply.status_code == 400
    assert problem(reply)["field"] == "previews"
