"""Clients that mean no good, up to where a body is read: connections, heads, paths, hosts, guessed keys."""

import contextlib
import re
import select
from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import Route

from predictor.asgi.access import Access
from predictor.edge.app import reply_at
from tests.edge.wire import connected, exchanged, head, until_closed

HEALTH = head("GET", "/healthz", host="x", connection="close")
SMUGGLED = {
    "both lengths": b"content-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "both lengths, the other way round": b"transfer-encoding: chunked\r\ncontent-length: 4\r\n\r\n0\r\n\r\n",
    "two lengths": b"content-length: 0\r\ncontent-length: 4\r\n\r\n",
    "a list of lengths": b"content-length: 0, 4\r\n\r\n",
    "a length with a sign": b"content-length: +0\r\n\r\n",
    "a negative length": b"content-length: -1\r\n\r\n",
    "a hexadecimal length": b"content-length: 0x0\r\n\r\n",
    "a length of 5000 digits": b"content-length: " + b"9" * 5000 + b"\r\n\r\n",
    "two encodings": b"transfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "an unknown encoding": b"transfer-encoding: xchunked\r\n\r\n0\r\n\r\n",
    "a space before the colon": b"content-length : 0\r\n\r\n",
    "a chunk that is no number": b"transfer-encoding: chunked\r\n\r\nzz\r\n\r\n",
    "a chunk of astronomic size": b"transfer-encoding: chunked\r\n\r\n" + b"f" * 40 + b"\r\n\r\n",
}
PATHS = (
    "/v1/files/..%2f..%2fsecret",
    "/v1/files/%2e%2e/%2e%2e/secret",
    "/v1/files/../secret",
    "/v1/files/%00",
    "/v1/files/" + "a" * 48 + ".png%00.html",
    "/v1/files/%ff%fe",
    "/page/../secret",
    "/page/%2e%2e%2fsecret",
    "/page/..%5c..%5csecret",
    "/page//etc/passwd",
    "/page/__init__.py",
    "/v2/models/%2e%2e",
    "/v2/models/..%2fshapes",
    "/v2/models/shapes%00",
    "/v2/models/shapes/versions/%2e%2e/ready",
    "/v1/jobs/%2e%2e",
    "/v1/jobs/%00",
    "/v1/jobs/" + "a" * 8000,
    "/v1/models/%F0%9F%92%A9",
    "//evil.example/v1/models",
    "/v1/jobs/",
    "/v1//jobs",
)


@pytest.fixture(scope="module")
def hostile(edge, start_edge):
    """An edge behind one proxy that is short of patience."""
    return start_edge(edge.predictor_url, body_seconds=1, forwarded_hops=1)


@pytest.fixture(scope="module")
def hostile_key(hostile) -> str:
    return hostile.key("--name", "hostile")


def refused(reply: httpx.Response) -> dict[str, object]:
    """The error of an answer, which must have its dialect's shape, an id, and nothing of the machine in it."""
    assert reply.headers["x-request-id"]
    assert reply.headers["x-should-retry"] in ("true", "false")
    assert not re.search(r"Traceback|site-packages|, line \d|/predictor/|sqlalchemy|Error\(", reply.text)
    body = reply.json()
    if reply.url.path.startswith("/v2"):
        assert {"error", "code"} <= body.keys() <= {"error", "code", "field", "retry_after"}
        return body
    assert body.keys() == {"error"}
    assert body["error"].keys() == {"message", "type", "param", "code"}
    return body["error"]


def answers(came: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3})", came)]


@pytest.mark.parametrize("begun", [b"", b"GET /healthz HT", head("GET", "/healthz", host="x")[:-2]])
def test_a_head_that_does_not_come_ends_the_connection(hostile, begun):
    with connected(hostile) as client:
        client.sendall(begun)
        assert until_closed(client) == b""


def test_a_head_that_comes_byte_by_byte_does_not_hold_the_connection_either(hostile):
    with connected(hostile) as client, contextlib.suppress(ConnectionError):
        client.sendall(b"GET /healthz HTTP/1.1\r\nx: ")
        for _ in range(600):
            client.sendall(b"x")
            if select.select([client], [], [], 0.1)[0]:
                assert client.recv(1) == b""
                return
        pytest.fail("still open")


def test_a_body_that_does_not_come_is_a_400_and_the_end_of_the_connection(hostile, hostile_key):
    came = exchanged(hostile, head("POST", "/v1/jobs", host="x", x_api_key=hostile_key, content_length="100") + b"{")
    assert answers(came) == [400]
    assert b"body: not complete within 1 s" in came


def test_a_refused_clients_body_is_not_waited_for(hostile):
    came = exchanged(hostile, head("POST", "/v1/jobs", host="x", content_length="100") + b"{")
    assert answers(came) == [401]


def test_hundreds_of_silent_connections_keep_nobody_out(hostile, hostile_key):
    with contextlib.ExitStack() as stack:
        for _ in range(300):
            stack.enter_context(connected(hostile)).sendall(b"POST /v1/jobs HTTP/1.1\r\n")
        with hostile.client(hostile_key) as client:
            assert client.get("/v1/models").status_code == 200


@pytest.mark.parametrize("shape", SMUGGLED.values(), ids=SMUGGLED)
def test_a_request_whose_end_is_in_doubt_is_refused_and_nothing_behind_it_is_read(hostile, hostile_key, shape):
    start = f"POST /v1/jobs HTTP/1.1\r\nhost: x\r\nx-api-key: {hostile_key}\r\n".encode()
    came = exchanged(hostile, start + shape + HEALTH)
    assert answers(came) == [400]
    assert b"x-request-id: " in came
    assert b'"code":"invalid_request"' in came


def test_pipelined_requests_are_answered_in_their_order(hostile):
    first, second = (head("GET", "/v1/models", host="x", x_request_id=id) for id in ("one", "two"))
    came = exchanged(hostile, first + second + HEALTH)
    assert answers(came) == [401, 401, 200]
    assert re.findall(rb"x-request-id: (one|two)", came) == [b"one", b"two"]


@pytest.mark.parametrize(
    "headers",
    [b"x: " + b"a" * 2**20, b"x: a\r\n" * 2**17, b"a" * 2**18 + b": x"],
    ids=["one long value", "many", "one long name"],
)
def test_a_head_without_end_is_cut_off(hostile, headers):
    came = exchanged(hostile, b"GET /healthz HTTP/1.1\r\nhost: x\r\n" + headers + b"\r\n\r\n")
    assert answers(came) in ([400], [])  # the answer may be lost where we were still sending


def test_trailers_without_end_are_cut_off(hostile, hostile_key):
    start = head("POST", "/v1/jobs", host="x", x_api_key=hostile_key, transfer_encoding="chunked")
    assert answers(exchanged(hostile, start + b"2\r\n{}\r\n0\r\n" + b"x: a\r\n" * 2**17)) in ([400], [])


@pytest.mark.parametrize("path", PATHS)
def test_no_path_leads_out_of_its_folder(edge, key, path):
    with edge.client(key) as client:
        reply = client.send(httpx.Request("GET", edge.url + path, headers=client.headers))
    assert reply.status_code in (403, 404)
    assert refused(reply)["code"] in ("not_found", "model_not_found", "forbidden")
    assert (edge.folder / "data" / "secret").read_text() not in reply.text


@pytest.mark.parametrize("method", ["TRACE", "OPTIONS", "PATCH", "PUT", "CONNECT", "DELETE", "BREW"])
@pytest.mark.parametrize(("path", "allowed"), [("/v1/jobs", "GET, HEAD, POST"), ("/v2/models/shapes/infer", "POST")])
def test_other_methods_are_refused_with_those_that_work(edge, key, method, path, allowed):
    with edge.client(key) as client:
        reply = client.request(method, path, headers={"cookie": "told-nobody"})
    assert reply.status_code == 405
    assert reply.headers["allow"] == allowed
    assert "told-nobody" not in reply.text
    refused(reply)


def test_head_is_get_without_its_body(edge, key):
    with edge.client(key) as client:
        full, bare = client.get("/v1/models"), client.head("/v1/models")
    assert (bare.status_code, bare.content) == (200, b"")
    assert bare.headers["content-length"] == full.headers["content-length"]


@pytest.mark.parametrize("given", ["<script>", "a b", "a" * 129, "ü", 'x"y', "%0d%0aset-cookie: a", ""])
def test_a_request_id_that_could_do_harm_is_replaced(edge, given):
    reply = httpx.get(f"{edge.url}/nowhere", headers={"x-request-id": given.encode("latin-1")})
    assert re.fullmatch("[0-9a-f]{32}", reply.headers["x-request-id"])
    assert given not in edge.log or given in ("", "ü")


@pytest.mark.parametrize("given", [b"", b"\xff", "ü".encode(), b"a\tb", b"a" * 256])
def test_an_idempotency_key_that_could_do_harm_is_refused(edge, key, given):
    with edge.client(key) as client:
        reply = client.post("/v1/jobs", json={"prompt": "x"}, headers={"idempotency-key": given})
    assert reply.status_code == 400
    assert refused(reply)["param"] == "Idempotency-Key"


async def test_a_bug_tells_its_client_nothing_but_an_id():
    async def broken(_):
        raise RuntimeError("the password is swordfish")

    routes = [Route("/v1/x", broken), Route("/v2/x", broken)]
    app = Starlette(routes=routes, middleware=[Middleware(Access, reply=reply_at)])
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://edge") as client:
        for path in ("/v1/x", "/v2/x"):
            reply = await client.get(path)
            assert reply.status_code == 500
            assert refused(reply)["code"] == "internal"
            assert "swordfish" not in reply.text


def test_a_forged_host_stands_in_no_answer_but_the_forgers_own(edge, key):
    body = {"prompt": "a forged host", "seed": 1, "num_inference_steps": 1, "size": "64x64", "response_format": "url"}
    forged = {"host": "evil.example", "x-forwarded-host": "evil.example", "x-forwarded-proto": "https"}
    with edge.client(key) as client:
        mine = client.post("/v1/images/generations", json=body, headers=forged).json()
        theirs = client.post("/v1/images/generations", json=body).json()
        listed = client.get("/v1/jobs").text
    assert mine["data"][0]["url"].startswith("http://evil.example/v1/files/")
    assert theirs["x_sdzero"]["cached"]
    assert theirs["data"][0]["url"].startswith(f"{edge.url}/v1/files/")
    assert "evil.example" not in listed


@pytest.mark.parametrize("host", ['"><script>', "a b", "x@evil.example", "evil.example/x?", "evil.example:99999", ""])
def test_a_host_that_is_none_stands_in_no_link(edge, key, host):
    body = {"prompt": "no host", "seed": 1, "num_inference_steps": 1, "size": "64x64", "response_format": "url"}
    with edge.client(key) as client:
        reply = client.post("/v1/images/generations", json=body, headers={"host": host})
    assert reply.json()["data"][0]["url"].startswith(f"{edge.url}/v1/files/")


def test_a_proxy_of_ours_says_how_clients_came(hostile, hostile_key):
    body = {"prompt": "by https", "seed": 1, "num_inference_steps": 1, "size": "64x64", "response_format": "url"}
    with hostile.client(hostile_key) as client:
        reply = client.post("/v1/images/generations", json=body, headers={"x-forwarded-proto": "http, https"})
    assert reply.json()["data"][0]["url"].startswith("https://127.0.0.1:")


def guess(edge, count: int, **headers: str) -> list[int]:
    """The statuses of so many requests with as many keys, one behind the other on one connection."""
    with connected(edge) as client:
        came, sent = b"", 0
        while sent < count:
            batch = range(sent, min(sent + 100, count))
            client.sendall(
                b"".join(
                    head("GET", "/v1/models", host="x", x_api_key=f"sk-sdz-{number:043d}", **headers)
                    for number in batch
                )
            )
            sent = batch.stop
            while len(answers(came)) < sent:
                came += client.recv(65536)
    return answers(came)


def resident(edge) -> int:
    """Bytes of memory."""
    (line,) = [line for line in Path(f"/proc/{edge.popen.pid}/status").read_text().splitlines() if "VmRSS" in line]
    return int(line.split()[1]) * 1024


def test_ten_thousand_guessed_keys_cost_little_and_shut_out_nobody_else(hostile, hostile_key):
    with hostile.client(hostile_key) as client:
        assert client.get("/v1/models").status_code == 200  # a key that was good before goes on
    before = resident(hostile)
    statuses = guess(hostile, 10_000, x_forwarded_for="198.51.100.1, 203.0.113.7")
    assert statuses[:20] == [401] * 20
    assert statuses.count(429) > 9_900  # all the rest, unless it took more than a minute
    assert resident(hostile) - before < 16 * 2**20
    with hostile.client(hostile_key) as client:
        assert client.get("/v1/models", headers={"x-forwarded-for": "203.0.113.7"}).status_code == 200
        assert client.get("/v1/models").status_code == 200
    assert guess(hostile, 1, x_forwarded_for="203.0.113.8") == [401]
    blocked = httpx.get(f"{hostile.url}/v1/models", headers={"x-api-key": "sk-no", "x-forwarded-for": "203.0.113.7"})
    assert refused(blocked)["code"] == "quota_exceeded"
    assert 1 <= int(blocked.headers["retry-after"]) <= 60


def test_without_a_proxy_nobody_escapes_by_naming_other_addresses(edge, start_edge):
    alone = start_edge(edge.predictor_url)
    statuses = [
        httpx.get(
            f"{alone.url}/v1/models",
            headers={"x-api-key": f"sk-{number}", "x-forwarded-for": f"203.0.113.{number}", "forwarded": "for=1.2.3.4"},
        ).status_code
        for number in range(25)
    ]
    assert statuses == [401] * 20 + [429] * 5
