"""What well-known applications send to OpenAI's Images API, and how they read the answer."""

import base64
import json
import subprocess

import httpx
import pytest

PROMPT = "a red circle on a blue background"
PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(scope="module")
def named(start_edge, edge):
    """An edge whose model has the names as well that these applications were written for."""
    return start_edge(edge.predictor_url, model_aliases="gpt-image-1,dall-e-2")


@pytest.fixture(scope="module")
def secret(named):
    return named.key("--name", "applications")


@pytest.fixture(scope="module")
def client(connect, named, secret):
    return connect(named, secret)


@pytest.mark.parametrize("parameters", [{}, {"response_format": "url", "seed": 41}], ids=["b64_json", "url"])
def test_open_webui(named, secret, parameters):
    """open-webui, backend/open_webui/routers/images.py, `image_generations` and `get_image_data`, of 2026.

    An administrator may add parameters. It prefers a link to base64, and fetches it with its own headers.
    """
    headers = {"Authorization": f"Bearer {secret}", "Content-Type": "application/json"}
    body = {"model": "shapes", "prompt": PROMPT, "n": 1, "size": "128x128", "response_format": "b64_json"} | parameters
    reply = httpx.post(f"{named.url}/v1/images/generations", json=body, headers=headers, timeout=60)
    reply.raise_for_status()
    (image,) = reply.json()["data"]
    assert ("url" in image) == bool(parameters)
    if url := image.get("url"):
        fetched = httpx.get(url, headers={"Authorization": headers["Authorization"]})
        assert fetched.headers["content-type"].split("/")[0] == "image"
        assert fetched.content.startswith(PNG)
    else:
        assert "," not in image["b64_json"]  # it would take a comma for the end of a data URI's head
        assert base64.b64decode(image["b64_json"]).startswith(PNG)


@pytest.mark.parametrize(("output", "more"), [("png", {}), ("webp", {"output_compression": 100})])
def test_librechat(named, secret, picture, output, more):
    """LibreChat, api/app/clients/tools/structured/OpenAIImageTools.js, `imageGenTool`.

    The model's name is fixed; JSON leaves an undefined `output_compression` out.
    """
    body = {
        "model": "gpt-image-1",
        "prompt": PROMPT,
        "n": 1,
        "background": "auto",
        "output_format": output,
        "quality": "auto",
        "size": "auto",
    }
    with named.client(secret) as http:
        answer = http.post("/v1/images/generations", json=body | more).json()
    assert picture(answer["data"][0]["b64_json"]).format == output.upper()


def test_librechat_is_told_what_is_wrong(named, secret):
    body = {"model": "gpt-image-1", "prompt": PROMPT, "background": "transparent"}
    with named.client(secret) as http:
        reply = http.post("/v1/images/generations", json=body)
    assert reply.status_code == 400
    assert reply.json()["error"]["message"].startswith("background: got 'transparent'")


def test_langchain(client):
    """langchain-community, utilities/dalle_image_generator.py, `DallEAPIWrapper.run`.

    It names no response format and joins the links, which OpenAI's DALL-E answered with.
    """
    response = client.images.generate(prompt=PROMPT, n=2, size="128x128", model="dall-e-2", quality="standard")
    links = "\n".join([item.url for item in response.data]).split("\n")
    assert [httpx.get(link).content.startswith(PNG) for link in links] == [True, True]


@pytest.mark.parametrize("download", [True, False])
def test_llamaindex(client, download):
    """llama-index-tools-openai, image_generation/base.py, `OpenAIImageGenerationToolSpec.image_generation`.

    It takes the file's kind from the first character of the base64.
    """
    response = client.images.generate(
        prompt=PROMPT,
        n=1,
        model="dall-e-2",
        quality="standard",
        size="256x256",
        response_format="b64_json" if download else "url",
        style="vivid",
        timeout=None,
    )
    if download:
        assert response.data[0].b64_json[0] == "i"  # png
    else:
        assert httpx.get(response.data[0].url).content.startswith(PNG)


def curl(*arguments):
    return subprocess.run(["curl", "-sS", "--max-time", "60", *arguments], capture_output=True, check=True, text=True)


@pytest.fixture(scope="module")
def bearer(secret):
    return ("-H", f"Authorization: Bearer {secret}")


def test_curl_needs_no_content_type(named, bearer):
    body = json.dumps({"prompt": PROMPT, "seed": 42, "size": "64x64"})
    answer = json.loads(curl(f"{named.url}/v1/images/generations", *bearer, "-d", body).stdout)
    assert base64.b64decode(answer["data"][0]["b64_json"]).startswith(PNG)
    assert answer["data"][0]["x_meta"]["seed"] == 42


def test_curl_fetches_a_link(named, bearer, tmp_path):
    body = json.dumps({"prompt": PROMPT, "seed": 42, "size": "64x64", "response_format": "url"})
    answer = json.loads(curl(f"{named.url}/v1/images/generations", *bearer, "-d", body).stdout)
    curl("-o", str(tmp_path / "picture.png"), answer["data"][0]["url"])
    assert (tmp_path / "picture.png").read_bytes().startswith(PNG)


def test_curl_streams(named, bearer):
    body = json.dumps({"prompt": PROMPT, "stream": True, "partial_images": 2})
    lines = curl("-N", f"{named.url}/v1/images/generations", *bearer, "-d", body).stdout.splitlines()
    assert [line for line in lines if line.startswith("event: ")] == [
        "event: image_generation.partial_image",
        "event: image_generation.partial_image",
        "event: image_generation.completed",
    ]


def test_curl_leaves_a_job_and_looks_for_it_later(named, bearer, eventually):
    body = json.dumps({"prompt": PROMPT, "seed": 43, "size": "64x64"})
    job = json.loads(curl(f"{named.url}/v1/jobs", *bearer, "-d", body).stdout)
    assert job["state"] == "active"
    route = f"{named.url}/v1/jobs/{job['id']}"
    stream = curl("-N", f"{route}/events", *bearer).stdout
    assert "event: done" in stream
    done = json.loads(curl(route, *bearer).stdout)
    assert (done["state"], done["seeds"]) == ("done", [43])
    assert curl("-o", "/dev/null", "-w", "%{http_code}", done["images"][0]["url"]).stdout == "200"


def test_curl_prefers_a_job(named, bearer):
    body = json.dumps({"prompt": PROMPT, "seed": 44, "size": "64x64"})
    command = (f"{named.url}/v1/images/generations", *bearer, "-H", "Prefer: respond-async", "-i", "-d", body)
    head, _, content = curl(*command).stdout.replace("\r\n", "\n").partition("\n\n")
    assert head.startswith("HTTP/1.1 202 ")
    assert f"location: /v1/jobs/{json.loads(content)['id']}" in head.lower()


def test_curl_reads_why_not(named, bearer):
    answer = json.loads(curl(f"{named.url}/v1/images/generations", *bearer, "-d", "prompt=a red circle").stdout)
    assert set(answer["error"]) == {"message", "type", "param", "code"}
    assert answer["error"]["code"] == "invalid_request"
