"""An edge that nobody has told what its model can do asks the predictor once, for whoever may wake it."""

import functools
import json
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from tests.edge.counting import counted, nothing_passes
from tests.edge.dialects import ASKING, INFER, OPENAI, SMALL, body, problem, refused
from tests.edge.running import rows
from tests.processes import free_port, wait_until

CAPABILITIES, PICTURES = "/capabilities", "/generate_stream"  # as the edge asks the predictor


@pytest.fixture(scope="module")
def untold(start_edge):
    """An edge that nobody has told what its model can do, and whose predictor never answers."""
    with counted(free_port()) as way:
        yield way, start_edge(way.url, capabilities="", timeout_seconds=1)


@pytest.mark.parametrize("path", ASKING)
def test_what_no_model_can_do_wakes_nobody_before_capabilities_are_known(untold, path):
    way, edge = untold
    size = "width" if path.startswith("/v2") else "size"
    steps = "steps" if path.startswith("/v2") else "num_inference_steps"
    wrong = [{"colour": "red"}, {steps: 0}, {steps: "5"}, {steps: 10**6}, {size: "65"}, {"seed": -1}]
    wrong += [{"guidance_scale": 1e9}, {"scheduler": 1}, {"sampler": 1}]
    if path != INFER:
        wrong += [{"prompt": ""}, {"prompt": 5}, {"prompt": "\ud800"}, {"prompt": "c" * 2**21}]
    with edge.client(edge.key("--name", "early")) as client, nothing_passes(way):
        for fields in wrong:
            reply = client.post(path, content=json.dumps(body(path, **fields)))
            assert reply.status_code in (400, 413), (fields, reply.text)
        for content in (b"", b"{", b"[]", b"\xff", b'{"prompt": NaN}'):
            assert client.post(path, content=content).status_code == 400
        if path.startswith("/v2"):
            assert client.post(path.replace("shapes", "another"), json=body(path)).status_code == 404
        else:
            assert problem(client.post(path, json=SMALL | {"model": "another"}))[0] == "model_not_found"


def test_what_can_be_read_wakes_nobody_before_capabilities_are_known(untold):
    way, edge = untold
    with edge.client(edge.key("--name", "reader")) as client, nothing_passes(way):
        for path in ("/openapi.json", "/v1/models", "/v1/models/shapes", "/v2/models/shapes/ready"):
            assert client.get(path).status_code == 200
        for path in ("/v2/models/another", "/v2/models/shapes/versions/1", "/v1/models/another"):
            assert client.get(path).status_code == 404
    with edge.client(edge.key("--name", "scopeless", "--scopes", "read")) as client, nothing_passes(way):
        assert client.get("/v2/models/shapes").status_code == 403


def test_to_ask_for_capabilities_is_to_wake(untold, tmp_path):
    way, edge = untold
    for path in (*ASKING, "/v2/models/shapes"):
        with edge.client(edge.key("--name", "once", "--wakes-per-hour", "1")) as client:
            ask = functools.partial(client.post, json=body(path)) if path in ASKING else client.get
            before = way.connections
            assert ask(path).status_code == 504
            assert way.connections > before
            with nothing_passes(way):
                refused(ask(path), "wake_refused")
                refused(client.post(OPENAI, json=SMALL), "wake_refused")


def test_other_limits_hold_before_capabilities_are_known(untold, start_edge, tmp_path):
    way, edge = untold
    soon = {"X-Request-Deadline": (datetime.now(UTC) + timedelta(seconds=4)).isoformat()}
    large = SMALL | {"size": "128x128", "num_inference_steps": 70}
    with edge.client(edge.key("--name", "poor", "--megapixel-steps-per-minute", "1")) as client, nothing_passes(way):
        assert client.post(OPENAI, json=large).status_code == 403
        assert problem(client.post(OPENAI, json=SMALL, headers=soon))[0] == "too_slow"
    blocklist = tmp_path / "blocklist"
    blocklist.write_text("circle\n")
    strict = start_edge(way.url, capabilities="", blocklist=blocklist)
    with strict.client(strict.key("--name", "blocked")) as client, nothing_passes(way):
        assert problem(client.post(OPENAI, json=SMALL))[0] == "moderation_blocked"


def test_capabilities_are_learned_from_the_first_request_and_remembered(start_predictor, start_edge):
    with counted(start_predictor().http_port) as way:
        edge = start_edge(way.url, capabilities="")
        with edge.client(edge.key("--name", "first")) as client:
            with nothing_passes(way):
                assert "x_capabilities" not in client.get("/v1/models/shapes").json()
            assert client.post(OPENAI, json=SMALL).status_code == 200
            assert (way.asked(CAPABILITIES), way.asked(PICTURES)) == (1, 1)
            edge.kill()
            edge.start()
            with nothing_passes(way):
                for fields in ({"num_inference_steps": 0}, {"prompt": "circle " * 76}):
                    assert client.post(OPENAI, json=SMALL | fields).status_code == 400
                limits = client.get("/v1/models/shapes").json()["x_capabilities"]
            assert limits["default_steps"] > 0
            assert "tokenizers" not in limits
            assert client.post(OPENAI, json=SMALL).status_code == 200
            assert way.asked(CAPABILITIES) == 1


def test_the_first_start_of_a_deployment_is_a_start_as_any_other(start_predictor, start_edge):
    port = free_port()
    edge = start_edge(f"http://127.0.0.1:{port}", capabilities="")
    with edge.client(edge.key("--name", "first", "--wakes-per-hour", "1")) as client:
        began = time.time()
        with ThreadPoolExecutor(1) as threads:
            reply = threads.submit(client.post, OPENAI, json=SMALL)
            wait_until(lambda: edge.metric("sdzero_edge_wakes_total") == 1)
            start_predictor(http_port=port)
            assert reply.result().status_code == 200, "to learn and to make is one wake"
        ((at, seconds),) = rows(edge, "SELECT at, seconds FROM cold_starts")
        assert seconds > 1, "no predictor starts within a second"
        assert began <= at < at + seconds <= time.time()
        ((waited,),) = rows(edge, "SELECT json_extract(result, '$.waited') FROM generations")
        assert waited == seconds
        assert "wake;dur=" in reply.result().headers["server-timing"]
        assert edge.metric("sdzero_edge_wakes_total") == 1
