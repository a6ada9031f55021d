"""A refused or cached request never wakes a GPU: what passes between a real edge and a real predictor is counted."""

import asyncio
import base64
import json
import threading
import time
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from tests.edge.counting import counted, nothing_passes
from tests.edge.dialects import (
    ASKING,
    FLAT,
    GENERATE,
    INFER,
    JOBS,
    OPENAI,
    SMALL,
    STREAM,
    body,
    problem,
    refused,
    tensors_of,
)
from tests.edge.running import rows
from tests.processes import free_port, wait_until

IDLE = 60.0  # seconds
REQUESTS = "sdzero_edge_predictor_requests"
PREDICTORS = "/v2/models/shapes/generate_stream"  # as the edge asks the predictor


@pytest.fixture(scope="module")
def predictor(start_predictor):
    return start_predictor()


@pytest.fixture
def way(predictor):
    with counted(predictor.http_port) as way:
        yield way


@pytest.fixture(scope="module", autouse=True)
def idle(predictor, start_edge):
    """An edge that has made a picture and is left alone from then on: the way behind it, the edge, and since when."""
    with counted(predictor.http_port) as way:
        edge = start_edge(way.url)
        with edge.client(edge.key("--name", "idle")) as client:
            assert client.post(OPENAI, json=SMALL).status_code == 200
        yield way, edge, way.traffic, time.monotonic()


@pytest.fixture(scope="module")
def watched(predictor, start_edge):
    """An edge whose way to the predictor nothing has ever passed, for everything that is refused."""
    with counted(predictor.http_port) as way:
        yield way, start_edge(way.url, max_body_bytes=65536)


@pytest.fixture(scope="module")
def allowed(watched):
    """The key of somebody who may do everything there."""
    return watched[1].key("--name", "allowed")


@pytest.mark.parametrize("path", ASKING)
def test_a_stranger_wakes_nobody(watched, path):
    way, edge = watched
    for headers in ({}, {"Authorization": "Bearer sk-wrong"}, {"x-api-key": "sk-wrong"}):
        with nothing_passes(way):
            reply = httpx.post(f"{edge.url}{path}", json=body(path), headers=headers)
        assert (reply.status_code, problem(reply)[0]) == (401, "unauthenticated")


def test_a_key_that_may_only_read_wakes_nobody(watched):
    way, edge = watched
    with edge.client(edge.key("--name", "reader", "--scopes", "read")) as client, nothing_passes(way):
        for path in ASKING:
            assert client.post(path, json=body(path)).status_code == 403


@pytest.mark.parametrize("path", ASKING)
def test_what_cannot_be_done_wakes_nobody(watched, allowed, path):
    way, edge = watched
    size = "width" if path.startswith("/v2") else "size"
    steps = "steps" if path.startswith("/v2") else "num_inference_steps"
    wrong = [{"colour": "red"}, {steps: 0}, {steps: "5"}, {steps: 10**6}, {size: 65}, {"seed": -1}, {"sampler": "best"}]
    wrong += [{"guidance_scale": 1e9}, {"scheduler": 1}]
    if path != INFER:
        wrong += [{"prompt": ""}, {"prompt": 5}, {"prompt": "circle " * 4000}]
    with edge.client(allowed) as client, nothing_passes(way):
        for fields in wrong:
            reply = client.post(path, json=body(path, **fields))
            assert (reply.status_code, problem(reply)[0]) == (400, "invalid_field"), (fields, reply.text)
        for content in (b"", b"{", b"[]", b"\xff", b'{"prompt": NaN}'):
            reply = client.post(path, content=content)
            assert (reply.status_code, reply.headers["x-should-retry"]) == (400, "false"), (content, reply.text)
        assert client.post(path, content=b" " * 70000).status_code == 413
        assert client.post(path, json=SMALL, headers={"Content-Type": "text/html"}).status_code == 415


@pytest.mark.parametrize("path", ASKING)
def test_a_prompt_of_too_many_tokens_wakes_nobody_and_is_refused_in_the_predictors_words(
    watched, allowed, predictor, path
):
    way, edge = watched
    for name in ("prompt", "negative_prompt"):
        for text in ("circle " * 76, "a" * 8192, "«é»" * 30):
            fields = {"prompt": "a green star", name: text}
            with edge.client(allowed) as client, nothing_passes(way):
                reply = client.post(path, json=tensors_of(fields) if path == INFER else body(path, **fields))
            code, message = problem(reply)
            assert (reply.status_code, code) == (400, "invalid_field"), reply.text
            itself = httpx.post(f"{predictor.model_url}/generate", json=FLAT | fields).json()
            assert (itself["code"], itself["field"]) == ("invalid_field", name)
            if "at least" not in message:
                assert message == itself["error"]
            else:
                assert text == "a" * 8192
                assert message.partition("; ")[2] == itself["error"].partition("; ")[2]


def test_a_long_prompt_may_be_cut(way, start_edge):
    edge = start_edge(way.url)
    with edge.client(edge.key("--name", "cut")) as client:
        long = SMALL | {"prompt": "circle " * 200}
        assert client.post(OPENAI, json=long | {"truncate_prompt": True}).status_code == 200
        assert client.post(OPENAI, json=SMALL | {"prompt": "circle " * 75}).status_code == 200


def test_a_model_that_says_nothing_of_its_tokens_has_the_last_word(way, start_edge, capabilities_file, tmp_path):
    older = json.loads(capabilities_file.read_text())
    del older["tokenizers"]
    (tmp_path / "older.json").write_text(json.dumps(older))
    edge = start_edge(way.url, capabilities=tmp_path / "older.json")
    with edge.client(edge.key("--name", "older")) as client:
        reply = client.post(OPENAI, json=SMALL | {"prompt": "circle " * 76})
        assert problem(reply) == (
            "invalid_field",
            "prompt: got 76 tokens; allowed: at most 75, or set truncate_prompt",
        )
        assert way.asked(PREDICTORS) == 1


def test_another_model_wakes_nobody(watched, allowed):
    way, edge = watched
    with edge.client(allowed) as client, nothing_passes(way):
        for path in (OPENAI, JOBS):
            reply = client.post(path, json=SMALL | {"model": "another"})
            assert (reply.status_code, problem(reply)[0]) == (404, "model_not_found")
        for path in (INFER, GENERATE, STREAM):
            assert client.post(path.replace("shapes", "another"), json=body(path)).status_code == 404


def test_what_can_be_read_wakes_nobody(watched, allowed):
    way, edge = watched
    paths = ("/", "/healthz", "/readyz", "/openapi.json", "/v1/models", "/v1/models/shapes", "/v1/jobs", "/v1/usage")
    of_v2 = ("/v2", "/v2/health/live", "/v2/health/ready", "/v2/models/shapes", "/v2/models/shapes/ready")
    with edge.client(allowed) as client, nothing_passes(way):
        for path in (*paths, *of_v2):
            assert client.get(path).status_code == 200, path
        assert client.get("/v1/models/shapes").json()["x_capabilities"]["default_steps"] > 0


def test_a_prompt_on_the_blocklist_wakes_nobody(predictor, way, start_edge, tmp_path):
    blocklist = tmp_path / "blocklist"
    blocklist.write_text("circle\nstar\n")
    edge = start_edge(way.url, blocklist=blocklist)
    with edge.client(edge.key("--name", "blocked")) as client, nothing_passes(way):
        for path in ASKING:
            reply = client.post(path, json=body(path))
            assert (reply.status_code, problem(reply)[0]) == (400, "moderation_blocked"), reply.text


def test_a_spent_quota_wakes_nobody(way, start_edge):
    edge = start_edge(way.url, idle_seconds=0)
    pictures, month, awakenings, jobs = (
        edge.key("--name", limit, f"--{limit}", str(value))
        for limit, value in (
            ("megapixel-steps-per-minute", 1),
            ("gpu-seconds-per-month", 1),
            ("wakes-per-hour", 1),
            ("concurrent-jobs", 1),
        )
    )
    with edge.client(pictures) as client, nothing_passes(way):
        # 128 x 128 x 70 is more than a million, which no minute of this key will ever allow.
        reply = client.post(OPENAI, json=SMALL | {"size": "128x128", "num_inference_steps": 70})
        assert reply.status_code == 403, reply.text
    with edge.client(pictures) as client:
        large = SMALL | {"size": "128x128", "num_inference_steps": 40}
        assert client.post(OPENAI, json=large).status_code == 200
        flat = FLAT | {"height": 128, "width": 128, "steps": 40}
        with nothing_passes(way):
            for path, fields in ((OPENAI, large), (JOBS, large), (GENERATE, flat), (STREAM, flat)):
                refused(client.post(path, json=fields), "quota_exceeded")
    with edge.client(awakenings) as client:
        assert client.post(OPENAI, json=SMALL).status_code == 200
        with nothing_passes(way):
            for path in (OPENAI, JOBS, INFER, GENERATE, STREAM):
                refused(client.post(path, json=body(path)), "wake_refused")
    with edge.client(month) as client:
        assert client.post(OPENAI, json=SMALL).status_code == 200
        rows(edge, "UPDATE ledger SET gpu_seconds = 2 WHERE gpu_seconds > 0")
        with nothing_passes(way):
            refused(client.post(OPENAI, json=SMALL), "quota_exceeded")
    with edge.client(jobs) as client:
        id = client.post(JOBS, json=SMALL | {"size": "128x128", "num_inference_steps": 100}).json()["id"]
        wait_until(lambda: client.get(f"{JOBS}/{id}").json()["state"] == "active" and edge.metric(REQUESTS) == 4)
        with nothing_passes(way):
            refused(client.post(JOBS, json=SMALL), "quota_exceeded")
        client.delete(f"{JOBS}/{id}")


def test_who_cannot_wait_for_a_cold_start_is_told_how_long_it_takes_and_wakes_nobody(way, start_edge):
    edge = start_edge(way.url, cold_start_seconds=300)
    soon = (datetime.now(UTC) + timedelta(seconds=30)).isoformat()
    with edge.client(edge.key("--name", "hasty")) as client, nothing_passes(way):
        for path in (OPENAI, JOBS, INFER, GENERATE, STREAM):
            for headers in ({"X-Request-Deadline": soon}, {"x-stainless-read-timeout": "20"}):
                if "x-stainless-read-timeout" in headers and path in (JOBS, STREAM):
                    continue  # these are not bound by it: a job is answered at once, and a stream has heartbeats
                reply = client.post(path, json=body(path), headers=headers)
                code, message = problem(reply)
                assert (reply.status_code, code) == (503, "too_slow"), (path, reply.text)
                assert "in about 301 s" in message
                assert (reply.headers["retry-after"], reply.headers["x-should-retry"]) == ("120", "true")


def test_a_hit_wakes_nobody_and_is_the_same_to_the_byte(way, start_edge):
    edge = start_edge(way.url)
    with edge.client(edge.key("--name", "owner")) as client:
        made = client.post(OPENAI, json=SMALL | {"seed": 5})
        assert (made.status_code, made.headers["x-cache"]) == (200, "miss")
        picture = base64.b64decode(made.json()["data"][0]["b64_json"])
        fields = {"prompt": SMALL["prompt"], "height": 64, "width": 64, "steps": 2, "seed": 5}
        with nothing_passes(way):
            hit = client.post(OPENAI, json=SMALL | {"seed": 5})
            assert (hit.status_code, hit.headers["x-cache"]) == (200, "hit")
            assert (hit.headers["etag"], hit.json()["data"]) == (made.headers["etag"], made.json()["data"])
            assert 0 <= int(hit.headers["age"]) < 60
            flat = client.post(GENERATE, json=fields)
            assert (flat.status_code, flat.headers["x-cache"]) == (200, "hit")
            assert flat.headers["etag"] == made.headers["etag"]
            assert flat.headers["age"].isdecimal()
            assert base64.b64decode(flat.json()["image"][0]) == picture
            job = client.post(JOBS, json=SMALL | {"seed": 5})
            assert job.status_code in (200, 202), job.text
            assert (job.json()["state"], job.json()["cached"]) == ("done", True)
            assert httpx.get(job.json()["images"][0]["url"]).content == picture
        assert client.get("/v1/usage").status_code == 200
        edge.stop()
        edge.start()
        with nothing_passes(way):  # nor after a restart, with an empty memory
            again = client.post(OPENAI, json=SMALL | {"seed": 5})
            assert (again.headers["x-cache"], again.json()["data"]) == ("hit", made.json()["data"])


async def at_once(edge, key, number, fields):
    headers = {"Authorization": f"Bearer {key}"}
    async with httpx.AsyncClient(base_url=edge.url, headers=headers, timeout=120.0) as client:
        return await asyncio.gather(*(client.post(OPENAI, json=fields) for _ in range(number)))


async def test_identical_requests_at_once_are_one_generation(way, start_edge, decoded):
    edge = start_edge(way.url)
    key = edge.key("--name", "owner")
    fields = SMALL | {"size": "128x128", "num_inference_steps": 30}

    joined = await at_once(edge, key, 8, fields | {"seed": 6})
    assert [reply.status_code for reply in joined] == [200] * 8
    assert len({reply.json()["data"][0]["b64_json"] for reply in joined}) == 1
    assert "joined" in {reply.headers["x-cache"] for reply in joined} <= {"miss", "joined", "hit"}
    assert way.asked(PREDICTORS) == 1

    apart = await at_once(edge, key, 3, SMALL)
    assert [reply.headers["x-cache"] for reply in apart] == ["miss"] * 3
    assert way.asked(PREDICTORS) == 4
    seeds = [reply.json()["data"][0]["x_meta"]["seed"] for reply in apart]
    assert len(set(seeds)) == 3
    (told,) = await at_once(edge, key, 1, SMALL | {"seed": seeds[0]})
    assert told.headers["x-cache"] == "miss", "without a seed nothing was promised"
    drawn, said = (decoded(reply.json()["data"][0]["b64_json"]).astype(int) for reply in (told, apart[0]))
    assert abs(drawn - said).max() <= 2, "alone it is drawn as in company, but for rounding"


def test_how_long_a_start_takes_is_learned_from_starts_and_remembered(start_predictor, start_edge):
    port = free_port()
    edge = start_edge(f"http://127.0.0.1:{port}", cold_start_seconds=500, idle_seconds=0)
    hasty = {"X-Request-Deadline": (datetime.now(UTC) + timedelta(seconds=200)).isoformat()}
    with edge.client(edge.key("--name", "first")) as client:
        assert client.post(OPENAI, json=SMALL, headers=hasty).status_code == 503, "the first guess is all there is"
        id = client.post(JOBS, json=SMALL).json()["id"]
        start_predictor(http_port=port)
        wait_until(lambda: client.get(f"{JOBS}/{id}").json()["state"] == "done", 60.0)
        ((seconds,),) = rows(edge, "SELECT seconds FROM cold_starts")
        assert 0 < seconds < 100
        assert client.post(OPENAI, json=SMALL, headers=hasty).status_code == 200
        edge.kill()
        edge.start()
        assert client.post(OPENAI, json=SMALL, headers=hasty).status_code == 200


def test_a_client_may_prefer_a_job(way, start_edge, eventually):
    edge = start_edge(way.url)
    with edge.client(edge.key("--name", "patient")) as client:
        for preference in ("respond-async", "wait=0"):
            reply = client.post(OPENAI, json=SMALL, headers={"Prefer": preference})
            assert (reply.status_code, reply.headers["preference-applied"]) == (202, "respond-async")
            where = reply.headers["location"]
            assert where == f"/v1/jobs/{reply.json()['id']}"
            eventually(lambda where=where: client.get(where).json()["state"] == "done")
        assert client.post(OPENAI, json=SMALL, headers={"Prefer": "wait=60"}).status_code == 200
        long = SMALL | {"size": "128x128", "num_inference_steps": 150}
        late = client.post(OPENAI, json=long, headers={"Prefer": "wait=1"})
        assert late.status_code == 202, "a second was not enough"
        assert client.delete(late.headers["location"]).json()["state"] == "cancelled"


def test_tenants_see_nothing_of_each_other(way, start_edge):
    apart = start_edge(way.url)
    ours, theirs = (apart.key("--name", tenant, "--tenant", tenant) for tenant in ("ours", "theirs"))
    with apart.client(ours) as us, apart.client(theirs) as them:
        id = us.post(JOBS, json=SMALL | {"seed": 7}).json()["id"]
        wait_until(lambda: us.get(f"{JOBS}/{id}").json()["state"] == "done")
        made = us.get(f"{JOBS}/{id}").json()["images"][0]["url"]
        with nothing_passes(way):
            for suffix in ("", "/events", "/manifest"):
                assert them.get(f"{JOBS}/{id}{suffix}").status_code == 404
            assert them.delete(f"{JOBS}/{id}").status_code == 404
            assert them.post(f"{JOBS}/{id}/replay").status_code == 404
            assert them.get(JOBS).json()["data"] == []
            assert httpx.get(made.partition("?")[0]).status_code in (403, 404), "without its signature"
        requests = way.asked(PREDICTORS)
        same = them.post(OPENAI, json=SMALL | {"seed": 7})
        assert (same.headers["x-cache"], way.asked(PREDICTORS)) == ("miss", requests + 1)
        other = them.post(JOBS, json=SMALL | {"seed": 7}).json()["images"][0]["url"]
        assert other.partition("?")[0] != made.partition("?")[0], "the same bytes have a name for each tenant"


def test_a_deployment_may_share_results_among_tenants(way, start_edge):
    shared = start_edge(way.url, cache_scope="deployment")
    ours, theirs = (shared.key("--name", tenant, "--tenant", tenant) for tenant in ("ours", "theirs"))
    with shared.client(ours) as us, shared.client(theirs) as them:
        made = us.post(OPENAI, json=SMALL | {"seed": 8})
        with nothing_passes(way):
            hit = them.post(OPENAI, json=SMALL | {"seed": 8})
        assert (hit.headers["x-cache"], hit.json()["data"]) == ("hit", made.json()["data"])


def test_an_idle_minute_is_silent(idle):
    way, edge, before, since = idle
    with edge.client() as client:
        while (left := since + IDLE - time.monotonic()) > 0:
            # Kubernetes asks all the time; a pause of the clock is what this test is about.
            assert client.get("/readyz").status_code == 200
            threading.Event().wait(min(left, 1.0))
    assert way.traffic == before
