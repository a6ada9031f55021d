"""Webhooks from the outbox to real receivers, which verify them with the library of the standard."""

import asyncio
import base64
import contextlib
import hashlib
import hmac
import threading
import time

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from standardwebhooks import Webhook, WebhookVerificationError

from predictor.core.problems import Cancelled, InvalidField, StoreUnavailable
from predictor.edge import webhooks
from predictor.edge.metrics import Metrics
from predictor.edge.stores.database import Database
from predictor.edge.stores.jobs import Jobs
from predictor.edge.stores.outbox import Outbox
from predictor.edge.webhooks import Deliverer, Signer, pause, webhook_url
from tests.edge.http_servers import Answer, web
from tests.edge.stores.given import admitted, announce, announced
from tests.processes import free_port

SIGNER = Signer(b"the deployment's secret, 32 long")
GONE = Cancelled("taken back").record()


class Clock:
    def __init__(self):
        self.now = time.time()

    def __call__(self):
        return self.now


class Forgetful(Outbox):
    """A database that is away the first time it is asked for anything."""

    def __init__(self, database):
        super().__init__(database)
        self.away = {"claim", "settle"}

    async def claim(self, *arguments):
        self._perhaps("claim")
        return await super().claim(*arguments)

    async def _settle(self, id, **values):
        self._perhaps("settle")
        await super()._settle(id, **values)

    def _perhaps(self, what):
        if what in self.away:
            self.away.discard(what)
            raise StoreUnavailable("the database does not answer", retry_after=2.0)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
async def jobs(tmp_path):
    database = await Database.open(f"sqlite:///{tmp_path / 'sdzero.db'}")
    yield Jobs(database, announce)
    await database.close()


@pytest.fixture
def metrics():
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    metrics.count = lambda outcome: registry.get_sample_value("sdzero_edge_webhooks_total", {"outcome": outcome})
    return metrics


@pytest.fixture
def delivering(jobs, clock, metrics, monkeypatch):
    """A deliverer at work, as one edge has it."""
    monkeypatch.setattr(webhooks, "POLL", 0.01)

    @contextlib.asynccontextmanager
    async def start(owner="edge", networks="any", outbox=None):
        outbox = outbox or Outbox(jobs._database)
        task = asyncio.create_task(Deliverer(outbox, SIGNER, owner, networks, metrics, clock=clock).run())
        try:
            yield
        finally:
            task.cancel()
            (ended,) = await asyncio.gather(task, return_exceptions=True)
        assert isinstance(ended, asyncio.CancelledError)

    return start


@pytest.fixture
def ended(jobs, clock):
    """A job that has ended and whose webhook is due."""

    async def end(url, **admission):
        job = await admitted(jobs, clock.now, webhook=url, **admission)
        return (await jobs.cancel(job.id, None, clock.now, GONE))[0]

    return end


@pytest.fixture
def delivery(jobs):
    """The row of the only webhook, as soon as it is in that state after so many tries."""

    async def until(state, attempts=1):
        async with asyncio.timeout(20):
            while True:
                (row,) = await announced(jobs)
                if (row.state, row.attempts) == (state, attempts) and row.owner is None:
                    return row
                await asyncio.sleep(0.01)

    return until


async def until(holds):
    async with asyncio.timeout(20):
        while True:
            if await holds():
                return
            await asyncio.sleep(0.01)


def verified(came, tenant):
    """What the receiver's own code makes of it."""
    return Webhook(SIGNER.secret(tenant)).verify(came.body, came.headers)


async def test_a_receiver_can_verify_what_it_gets(delivering, ended, delivery, metrics):
    with web(lambda came: Answer(204)) as receiver:
        job = await ended(f"{receiver.url}/hook?for=me", tenant="acme")
        async with delivering():
            row = await delivery("delivered")
    (came,) = receiver.came
    assert verified(came, "acme") == {"id": job.id, "state": "cancelled", "at": job.finished}
    assert (came.path, came.headers["webhook-id"]) == ("/hook?for=me", row.id)
    assert came.headers["content-type"] == "application/json"
    assert came.body == row.body.encode()
    assert metrics.count("delivered") == 1
    with pytest.raises(WebhookVerificationError):
        verified(came, "another tenant")
    with pytest.raises(WebhookVerificationError):
        Webhook(SIGNER.secret("acme")).verify(came.body.replace(b"cancelled", b"done"), came.headers)


def test_a_secret_is_one_tenants_and_one_deployments():
    secret = SIGNER.secret("acme")
    assert secret == SIGNER.secret("acme")
    assert len(base64.b64decode(secret.removeprefix("whsec_"), validate=True)) == 32
    assert len({secret, SIGNER.secret("acme2"), SIGNER.secret(""), Signer(b"another").secret("acme")}) == 4


@given(st.binary(), st.text(max_size=20))
def test_the_signature_is_over_id_time_and_body(body, tenant):
    headers = SIGNER.headers(tenant, "msg_1", int(time.time()), body)
    signed = headers["webhook-signature"].removeprefix("v1,")
    key = base64.b64decode(SIGNER.secret(tenant).removeprefix("whsec_"))
    expected = hmac.new(key, b"msg_1." + headers["webhook-timestamp"].encode() + b"." + body, hashlib.sha256)
    assert base64.b64decode(signed) == expected.digest()


async def test_every_try_has_the_same_id_and_body_and_a_new_signature(delivering, ended, delivery, clock, metrics):
    statuses = [500, 503, 429, 404, 200]
    left = list(statuses)
    with web(lambda came: Answer(left.pop(0))) as receiver:
        await ended(receiver.url)
        async with delivering():
            for attempts, status in enumerate(statuses[:-1], 1):
                row = await delivery("pending", attempts)
                assert row.error == f"HTTP {status}"
                longest = 5.0 * 2 ** (attempts - 1)
                assert longest / 2 <= row.next_at - clock.now <= longest
                clock.now = row.next_at
            await delivery("delivered", len(statuses))
    assert len({(came.headers["webhook-id"], came.body) for came in receiver.came}) == 1
    stamps = [int(came.headers["webhook-timestamp"]) for came in receiver.came]
    assert stamps == sorted(set(stamps))
    assert len({came.headers["webhook-signature"] for came in receiver.came}) == len(statuses)
    assert (metrics.count("failed"), metrics.count("delivered"), metrics.count("dead")) == (4, 1, 0)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_not_followed(delivering, ended, delivery, status):
    with web(lambda came: Answer(status, headers={"location": f"http://127.0.0.1:{receiver.port}/else"})) as receiver:
        await ended(f"{receiver.url}/hook")
        async with delivering():
            assert (await delivery("pending")).error == f"HTTP {status}"
    assert [came.path for came in receiver.came] == ["/hook"]


async def test_a_receiver_that_says_gone_is_left_alone(delivering, ended, delivery, metrics):
    with web(lambda came: Answer(410)) as receiver:
        await ended(receiver.url)
        async with delivering():
            assert (await delivery("dead")).error == "HTTP 410"
    assert len(receiver.came) == metrics.count("dead") == 1


async def test_after_three_days_nobody_tries_again(delivering, ended, delivery, clock):
    await ended(f"http://127.0.0.1:{free_port()}/")
    async with delivering():
        await delivery("pending")
        clock.now += 3 * 86400
        row = await delivery("dead", 2)
    assert row.error.startswith("ConnectError: ")


async def test_a_receiver_that_says_nothing_is_a_failure(delivering, ended, delivery, monkeypatch):
    monkeypatch.setattr(webhooks, "TRY", 0.2)
    let_go = threading.Event()

    def silent(came):
        let_go.wait(20)
        return Answer()

    with web(silent) as receiver:
        await ended(receiver.url)
        async with delivering():
            assert (await delivery("pending")).error == "no answer within 0.2 s"
        let_go.set()


async def test_an_answer_without_end_is_not_read(delivering, ended, delivery):
    """The status line decides, and nothing of the body is waited for."""
    with web(lambda came: Answer(200, b"x" * 100, {"content-length": str(2**40)})) as receiver:
        await ended(receiver.url)
        async with delivering():
            await delivery("delivered")


async def test_a_slow_receiver_holds_up_nobody_else(delivering, ended, jobs):
    let_go = threading.Event()

    def answer(came):
        if came.path == "/slow":
            let_go.wait(20)
        return Answer()

    async def five_are_stuck():
        return len(receiver.came) == 5

    async def is_delivered(job):
        return (job.id, "delivered") in [(row.job_id, row.state) for row in await announced(jobs)]

    with web(answer) as receiver:
        for _ in range(5):
            await ended(f"{receiver.url}/slow")
        async with delivering():
            await until(five_are_stuck)
            quick = await ended(f"{receiver.url}/quick")
            await until(lambda: is_delivered(quick))
            let_go.set()


async def test_what_a_dying_edge_was_sending_is_sent_by_the_next(delivering, ended, delivery, clock):
    let_go = threading.Event()

    def answer(came):
        if len(receiver.came) == 1:
            let_go.wait(20)
        return Answer()

    async def it_is_there():
        return bool(receiver.came)

    with web(answer) as receiver:
        await ended(receiver.url)
        async with delivering("first"):
            await until(it_is_there)
        async with delivering("second"):
            clock.now += webhooks.LEASE
            await delivery("delivered", 2)
        let_go.set()
    first, second = receiver.came
    assert (first.headers["webhook-id"], first.body) == (second.headers["webhook-id"], second.body)


async def test_a_database_that_is_away_for_a_moment_costs_a_second_delivery(delivering, ended, jobs, delivery, clock):
    outbox = Forgetful(jobs._database)

    async def was_away():
        return not outbox.away

    with web(lambda came: Answer()) as receiver:
        await ended(receiver.url)
        async with delivering(outbox=outbox):
            await until(was_away)
            clock.now += webhooks.LEASE
            await delivery("delivered", 2)
    assert len({came.body for came in receiver.came}) == 1


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "2130706433", "[::ffff:127.0.0.1]"])
async def test_ones_own_network_is_refused_when_it_is_connected_to(delivering, ended, delivery, host):
    with web(lambda came: Answer()) as receiver:
        await ended(webhook_url(f"http://{host}:{receiver.port}/"))
        async with delivering(networks="public"):
            row = await delivery("pending")
    assert row.error.endswith("allowed: addresses on the public Internet")
    assert receiver.connections == 0


async def test_a_proxy_of_the_environment_is_not_used(delivering, ended, delivery, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{free_port()}")
    with web(lambda came: Answer()) as receiver:
        await ended(receiver.url)
        async with delivering():
            await delivery("delivered")


@given(st.integers(1, 10**6), st.floats(0, 1))
def test_pauses_grow_to_an_hour_and_spread(attempts, luck):
    longest = min(5.0 * 2 ** min(attempts - 1, 100), 3600.0)
    assert longest / 2 <= pause(attempts, luck) <= longest
    assert pause(attempts, 0.0) <= pause(attempts, luck) <= pause(attempts, 1.0) <= pause(attempts + 1, 1.0)


@pytest.mark.parametrize(
    "url",
    [
        "https://example.org",
        "http://example.org:8080/hook?token=a%20b",
        "HTTPS://Example.ORG/",
        "https://bücher.example/",
        "https://[2606:4700::1]/",
        "http://hooks.prod.svc.cluster.local/a",
        "http://under_score.example/",
        f"https://example.org/{'a' * (2048 - 20)}",
    ],
)
def test_a_url_is_taken_as_it_came(url):
    assert webhook_url(url) == url


@pytest.mark.parametrize(
    "url",
    [
        "",
        "example.org/hook",
        "//example.org/",
        "ftp://example.org/",
        "file:///etc/passwd",
        "javascript:alert(1)",
        "http://",
        "http:///hook",
        "https://user@example.org/",
        "https://user:password@example.org/",
        "https://example.org/#part",
        "https://example.org/#",
        "https://example.org:0/",
        "https://example.org:99999/",
        "https://example.org:port/",
        "https://exa mple.org/",
        "https://example.org\\@evil.example/",
        "https://%31%32%37.0.0.1/",
        "https://0177.0.0.1/",
        "https://[::1/",
        "https://[fe80::1%25eth0]/",
        "https://-/",
        "https://xn--/",
        "https://example.org/\r\nx-evil: 1",
        "https://example.org/\x00",
        f"https://example.org/{'a' * (2049 - 20)}",
        f"https://{'a' * 300}/",
    ],
)
def test_a_url_that_no_webhook_may_go_to_is_refused_by_name(url):
    with pytest.raises(InvalidField, match=r"^webhook_url: .*; allowed: http:// or https:// and a host") as caught:
        webhook_url(url)
    assert caught.value.field == "webhook_url"
    assert "password@" not in caught.value.message


@given(st.text())
def test_any_text_is_a_url_or_refused(text):
    with contextlib.suppress(InvalidField):
        assert httpx.URL(webhook_url(text)).host
    with contextlib.suppress(InvalidField):
        assert httpx.URL(webhook_url(f"http://{text}")).host
