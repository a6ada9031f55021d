"""Bodies that mean no good, on either database; and what is secret stays so."""

import gzip
import json
import re

import pytest

from tests.edge.test_hostile import refused
from tests.edge.wire import exchanged, head

SMALL = {"prompt": "x", "num_inference_steps": 1, "size": "64x64"}
BODIES = {
    "1e999": b'{"prompt":"x","guidance_scale":1e999}',
    "-1e999": b'{"prompt":"x","guidance_scale":-1e999}',
    "10**5000": b'{"prompt":"x","seed":1' + b"0" * 5000 + b"}",
    "2**64": b'{"prompt":"x","seed":18446744073709551616}',
    "NaN": b'{"prompt":"x","guidance_scale":NaN}',
    "a lone surrogate": b'{"prompt":"\\ud800 x"}',
    "half a pair": b'{"prompt":"x","negative_prompt":"\\udc00"}',
    "a surrogate for a name": b'{"prompt":"x","\\ud800":1}',
    "UTF-8 of a surrogate": b'{"prompt":"\xed\xa0\x80"}',
    "overlong UTF-8": b'{"prompt":"\xc0\xaf"}',
    "UTF-16": '{"prompt":"x"}'.encode("utf-16"),
    "a byte order mark": b'\xef\xbb\xbf{"prompt":"x"}',
    "a name twice": b'{"prompt":"x","prompt":"y"}',
    "a name twice, once escaped": b'{"prompt":"x","\\u0070rompt":"y"}',
    "lists without end": b'{"prompt":' + b"[" * 500_000,
    "deep lists": b'{"prompt":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "deep objects": b'{"prompt":' * 50_000 + b"1" + b"}" * 50_000,
    "a name of 500 kB": b'{"prompt":"x","' + b"a" * 500_000 + b'":1}',
    "100000 names": b'{"prompt":"x",' + b",".join(b'"%d":1' % number for number in range(100_000)) + b"}",
    "a prompt of 500 kB": b'{"prompt":"' + b"a" * 500_000 + b'"}',
    "something behind it": b'{"prompt":"x"}{"prompt":"y"}',
    "a list": b'[{"prompt":"x"}]',
    "null": b"null",
    "nothing": b"",
    "bytes": bytes(range(256)),
}
ROUTES = ("/v1/images/generations", "/v1/jobs", "/v2/models/shapes/generate", "/v2/models/shapes/infer")


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def either(request, edge, start_edge):
    """An edge on either database."""
    if request.param == "sqlite":
        return edge
    url = request.getfixturevalue("postgresql").create("hostile_texts")
    return start_edge(edge.predictor_url, database_url=url, secret="a secret of thirty-two characters")


@pytest.fixture(scope="module")
def either_key(either) -> str:
    return either.key("--name", "hostile")


def followed(client, job: dict) -> dict:
    """The job when it has ended."""
    with client.stream("GET", f"/v1/jobs/{job['id']}/events") as events:
        for _ in events.iter_lines():
            pass
    return client.get(f"/v1/jobs/{job['id']}").json()


@pytest.mark.parametrize("field", ["prompt", "negative_prompt"])
@pytest.mark.parametrize("text", ["a\0b", "\0x", "a\x1b[2Jb", "\u202eb\ufeff", "\U0010ffff", "'; DROP TABLE jobs; --"])
def test_a_prompt_of_any_characters_is_kept_as_it_came(either, either_key, field, text):
    with either.client(either_key) as client:
        accepted = client.post("/v1/jobs", json=SMALL | {field: text})
        assert accepted.status_code == 202
        done = followed(client, accepted.json())
        assert (done["state"], done["request"][field]) == ("done", text)
        assert client.get(f"/v1/jobs/{done['id']}/manifest").json()["request"][field] == text
        assert client.get("/v1/jobs").json()["data"][0]["request"][field] == text


@pytest.mark.parametrize("field", ["user", "safety_identifier", "webhook_url"])
def test_a_text_that_not_every_database_can_store_is_refused(either, either_key, field):
    text = "http://example.com/\0" if field == "webhook_url" else "a\0b"
    with either.client(either_key) as client:
        reply = client.post("/v1/jobs", json=SMALL | {field: text})
    assert (reply.status_code, refused(reply)["param"]) == (400, field)


@pytest.mark.parametrize("path", ["/v1/jobs/%00", "/v1/jobs?after=%00", "/v1/jobs/a%00/events", "/v1/jobs/%ed%a0%80"])
def test_no_database_is_asked_for_what_it_cannot_hold(either, either_key, path):
    with either.client(either_key) as client:
        reply = client.get(path)
    assert reply.status_code in (400, 404)
    refused(reply)


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_a_body_that_is_no_request_is_a_400(edge, key, route, body):
    with edge.client(key) as client:
        reply = client.post(route, content=body)
    assert reply.status_code == 400
    assert refused(reply)["code"] in ("invalid_request", "invalid_field")
    assert len(reply.content) < 2000


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd", "gzip, identity", "x"])
def test_a_body_that_would_have_to_be_unpacked_is_refused(edge, key, encoding):
    with edge.client(key) as client:
        reply = client.post("/v1/jobs", content=gzip.compress(b" " * 2**24), headers={"content-encoding": encoding})
    assert reply.status_code == 415
    assert refused(reply)["code"] == "unsupported_media"


@pytest.mark.parametrize(
    "kind",
    [
        "text/html",
        "multipart/form-data; boundary=x",
        "application/xml",
        "application/json; charset=utf-16",
        "application/json; charset*=bogus''%ff",
        'application/json;"' + ";" * 60_000,  # which takes Python's parser a second for each
        "application/json, text/html",
    ],
)
def test_a_body_of_another_type_is_refused(edge, key, kind):
    with edge.client(key) as client:
        reply = client.post("/v1/jobs", content=json.dumps(SMALL), headers={"content-type": kind})
    assert reply.status_code == 415
    assert refused(reply)["code"] == "unsupported_media"


@pytest.mark.parametrize("prefer", ["a" + " " * 60_000 + "!", "a=" + " " * 60_000 + '";"', ",;=" * 20_000])
def test_a_preference_that_nobody_understands_is_ignored_however_long(edge, key, prefer):
    with edge.client(key) as client:
        reply = client.post("/v1/images/generations", json=SMALL | {"seed": 1}, headers={"prefer": prefer})
    assert reply.status_code == 200


def test_a_body_in_chunks_is_read_no_further_than_its_limit(edge, key):
    with edge.client(key) as client:
        reply = client.post("/v1/jobs", content=iter([b'{"prompt":"', *[b"a" * 65536] * 20, b'"}']))
    assert reply.status_code == 413
    assert refused(reply)["code"] == "body_too_large"


def test_a_body_that_says_it_is_too_long_is_not_read(edge, key):
    sent = head("POST", "/v1/jobs", host="x", x_api_key=key, content_length=str(10**12), connection="close")
    assert b"HTTP/1.1 413" in exchanged(edge, sent)


def test_secrets_and_prompts_stand_in_no_log_and_no_answer(edge, start_edge):
    """On the most talkative level."""
    told = start_edge(edge.predictor_url, log_level="debug", secret="the deployment's own secret, of many characters")
    secret = told.key("--name", "kept")
    answers = []
    with told.client(secret) as client:
        signing = client.get("/v1/webhook-secret").json()["secret"]
        body = SMALL | {
            "prompt": "a whispered prompt",
            "negative_prompt": "an unwanted thing",
            "user": "a person's name",
        }
        done = followed(
            client, client.post("/v1/jobs", json=body | {"webhook_url": "http://127.0.0.1:9/hidden"}).json()
        )
        assert done["state"] == "done"
        answers += [client.post("/v1/jobs", json=body | {"n": "a whispered prompt"}), client.get(f"/v1/{secret}")]
        answers += [client.post("/v1/jobs", json=body, headers={"idempotency-key": "k"}) for _ in range(2)]
        answers += [client.post("/v1/jobs", json=SMALL, headers={"idempotency-key": "k"}), client.get("/v1/usage")]
    with told.client(secret + "x") as client:
        answers.append(client.get("/v1/models"))
    with told.client() as client:
        answers.append(client.get("/v1/models", headers={"authorization": secret}))
        answers.append(client.get(f"/v1/models?api_key={secret}", headers={"x-api-key": f"{secret}x"}))
    assert done["id"] in told.log
    for kept in (
        secret,
        signing,
        signing.removeprefix("whsec_"),
        "deployment's own",
        "whispered",
        "unwanted",
        "person",
    ):
        assert kept not in told.log
    for answer in answers:
        assert not re.search(f"{re.escape(signing)}|deployment's own", answer.text)
        assert secret not in answer.text or answer.request.url.path.endswith(secret)
