"""Clients that lose patience, come back, or go for good: the GPU works once, and for nobody who has left."""

import json
import subprocess
from concurrent.futures import ThreadPoolExecutor

import httpx
import httpx2
import openai as sdk
import pytest

from tests.processes import free_port

PROMPT = "a red circle on a blue background"
LONG = {"size": "256x256", "num_inference_steps": 60}  # seconds on a CPU


@pytest.fixture
def curl(edge, key):
    """curl, asking the edge for long work; killed after the test."""
    began: list[subprocess.Popen] = []

    def begin(**more):
        body = {"prompt": PROMPT, "n": 2} | LONG | more
        command = ["curl", "-sSN", f"{edge.url}/v1/images/generations", "-H", f"Authorization: Bearer {key}"]
        began.append(subprocess.Popen([*command, "-d", json.dumps(body)], stdout=subprocess.PIPE))
        return began[-1]

    yield begin
    for process in began:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("more", [{}, {"stream": True, "partial_images": 1}], ids=["json", "stream"])
def test_whoever_hangs_up_frees_the_gpu(curl, counts, eventually, more):
    before = counts.cancelled
    process = curl(**more)
    eventually(lambda: counts.in_flight == 2)
    process.kill()
    eventually(lambda: counts.in_flight == 0)
    assert counts.cancelled == before + 1


def test_a_closed_stream_of_the_sdk_frees_the_gpu(openai, counts, eventually):
    """The SDK never asks again for a stream that has begun, so nobody has to wait for it."""
    before = counts.cancelled
    stream = openai.images.generate(prompt=PROMPT, stream=True, partial_images=1, extra_body=LONG)
    eventually(lambda: counts.in_flight == 1)
    stream.close()
    eventually(lambda: counts.in_flight == 0)
    assert counts.cancelled == before + 1


def test_one_of_two_who_ask_for_the_same_may_leave(curl, edge, key, counts, eventually):
    body = {"prompt": PROMPT, "seed": 31, "n": 1} | LONG | {"num_inference_steps": 30}
    before = counts.requests
    first = curl(**body)
    eventually(lambda: counts.in_flight == 1)
    with edge.client(key) as client, ThreadPoolExecutor() as threads:
        second = threads.submit(client.post, "/v1/images/generations", json=body)
        eventually(lambda: edge.metric('sdzero_edge_cache_total{found="joined"}') >= 1)
        first.kill()
        answer = second.result().json()
    assert answer["data"][0]["x_meta"]["seed"] == 31
    assert answer["x_sdzero"]["gpu_seconds"] > 0  # whoever stays inherits the bill
    assert counts.requests == before + 1


def test_a_retry_of_the_sdk_finds_the_picture_that_it_gave_up(start_edge, edge, connect, counts, picture):
    """This edge has yet to learn how slow the predictor is; it lets a client begin that cannot wait for the end."""
    hopeful = start_edge(edge.predictor_url, auth="none", cold_start_seconds=0.1)
    before = counts.requests
    client = connect(hopeful, "any", timeout=2.0, max_retries=5)
    raw = client.images.with_raw_response.generate(prompt=PROMPT, extra_body=LONG | {"seed": 32})
    assert raw.retries_taken >= 1
    assert picture(raw.parse().data[0].b64_json).size == (256, 256)
    assert counts.requests == before + 1
    assert hopeful.metric("sdzero_edge_predictor_requests") == 1
    assert hopeful.metric('sdzero_edge_cache_total{found="miss"}') == 1


def test_the_sdk_comes_back_when_it_is_told_to(start_edge, edge, connect):
    """Asleep, the predictor would need longer than this client waits; when it comes back, somebody has woken it."""
    asleep = start_edge(edge.predictor_url, auth="none", cold_start_seconds=20)
    small = {"prompt": PROMPT, "size": "64x64", "num_inference_steps": 4}
    seen = []

    def woken_by_another(response: httpx2.Response) -> None:
        seen.append((response.status_code, response.request.headers["x-stainless-retry-count"]))
        if response.status_code == 503:
            assert asleep.metric("sdzero_edge_predictor_requests") == 0
            assert response.headers["x-should-retry"] == "true"
            assert response.headers["retry-after"] == "22"
            response.headers["retry-after"] = "1"  # the test need not last as long
            assert httpx.post(f"{asleep.url}/v1/images/generations", json=small, timeout=60).status_code == 200

    http_client = sdk.DefaultHttpx2Client(event_hooks={"response": [woken_by_another]})
    client = connect(asleep, "any", timeout=10.0, max_retries=2, http_client=http_client)
    client.images.generate(prompt=PROMPT, size="64x64", extra_body={"num_inference_steps": 4})
    assert seen == [(503, "0"), (200, "1")]


def test_a_request_waits_for_a_predictor_that_is_not_there_yet(start_edge, start_predictor, connect, eventually):
    port = free_port()
    edge = start_edge(f"http://127.0.0.1:{port}", auth="none")
    ask = {"prompt": PROMPT, "size": "64x64", "extra_body": {"num_inference_steps": 4}}
    with ThreadPoolExecutor() as threads:
        asked = threads.submit(connect(edge, "any").images.with_raw_response.generate, **ask)
        eventually(lambda: edge.metric("sdzero_edge_predictor_requests") >= 1)
        start_predictor(http_port=port, ready=False)
        raw = asked.result()
    assert raw.retries_taken == 0
    assert raw.headers["x-sdzero-cold-start"] == "true"
    assert raw.headers["server-timing"].startswith("wake;dur=")
    assert raw.parse().x_sdzero["cold_start"] is True
