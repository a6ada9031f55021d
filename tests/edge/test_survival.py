"""Jobs outlive the edge, the predictor and the database; two edges share them. Every part is real."""

import contextlib
import itertools
import json
import os
import signal
import sqlite3
import threading

import httpx
import pytest

from tests.edge.http_servers import Answer, web
from tests.processes import wait_until

SECRET = "signs links and names images in tests"
LONG = {"prompt": "a red circle on a blue background", "size": "128x128", "num_inference_steps": 60}
SHORT = {"prompt": "a green star", "size": "64x64", "num_inference_steps": 2}
ENDS = ("done", "failed", "cancelled")
_names = itertools.count()


@pytest.fixture(scope="module")
def predictor(start_predictor):
    return start_predictor()


@pytest.fixture
def receiver():
    with web(lambda _: Answer(204)) as receiver:
        yield receiver


@pytest.fixture
def database(postgresql):
    """An empty database: its address, and a function that runs a statement in it."""
    name = f"survival{next(_names)}"
    return postgresql.create(name), lambda statement: postgresql.execute(statement, name)


@pytest.fixture
def shared(database, redis, tmp_path):
    """The settings of edges that share everything."""
    return {
        "database_url": database[0],
        "redis_url": redis.url,
        "data": tmp_path,
        "secret": SECRET,
        "webhook_networks": "any",
        "grace_seconds": 1,
    }


def create(client, **fields):
    reply = client.post("/v1/jobs", json=LONG | fields)
    assert reply.status_code == 202, reply.text
    return reply.json()["id"]


@contextlib.contextmanager
def events(client, id, after=None):
    """An iterator over (id, name, data) of a job's events."""
    with client.stream("GET", f"/v1/jobs/{id}/events", headers={"Last-Event-ID": after} if after else {}) as reply:
        assert reply.status_code == 200

        def parsed():
            event = {}
            for line in reply.iter_lines():
                field, _, value = line.partition(": ")
                if field:
                    event[field] = value
                elif event:
                    yield event.get("id"), event.get("event"), json.loads(event.get("data", "null"))
                    event = {}

        yield (event for event in parsed() if event[1])


def until_it_draws(client, id):
    """The id of the event that says that the job's second step is done."""
    with events(client, id) as heard:
        return next(number for number, name, data in heard if name == "progress" and data["step"] >= 2)


def ended(client, id):
    """The job when it has ended."""
    with events(client, id) as heard:
        return next(data for _, name, data in heard if name in ENDS)


def execute(edge, statement):
    """The rows of one statement in the edge's own database."""
    with contextlib.closing(sqlite3.connect(edge.folder / "data" / "sdzero.db")) as connection, connection:
        return connection.execute(statement).fetchall()


def lines(edge, id):
    """The job's lines in the audit log."""
    with edge.client(edge.key("--name", "auditor", "--scopes", "read,admin")) as admin:
        return [line for line in admin.get("/v1/audit").json()["data"] if line["job_id"] == id]


def assert_has_its_image(client, view):
    assert (view["state"], view["error"]) == ("done", None)
    (image,) = view["images"]
    reply = client.get(image["url"], headers={"Authorization": ""})
    assert (reply.status_code, reply.headers["content-type"]) == (200, "image/png")


def test_a_job_outlives_the_kill_of_its_edge_and_is_told_and_booked_once(start_edge, predictor, receiver, eventually):
    edge = start_edge(predictor.url, webhook_networks="any")

    with edge.client(edge.key("--name", "owner")) as client:
        id = create(client, seed=11, webhook_url=f"{receiver.url}/hook")
        last = until_it_draws(client, id)
        edge.kill()
        # As if the lease's time had passed without a word of the edge that holds it.
        execute(edge, "UPDATE generations SET lease_until = 0 WHERE state = 'running'")
        edge.start()
        with events(client, id, after=last) as heard:
            numbers, names, data = zip(*(event for event in heard if event[1] != "waking"), strict=True)
        assert names == ("progress",) * (len(names) - 1) + ("done",)
        assert all(int(number.partition("-")[0]) > int(last.partition("-")[0]) for number in numbers[:-1])
        assert_has_its_image(client, data[-1])
        assert client.get(f"/v1/jobs/{id}").json()["finished"] == data[-1]["finished"]
    assert execute(edge, "SELECT state, attempt FROM generations") == [("done", 2)]
    assert [line["outcome"] for line in lines(edge, id)] == ["ok"]
    eventually(lambda: receiver.came)
    eventually(lambda: execute(edge, "SELECT state FROM deliveries") == [("delivered",)])
    assert {came.body for came in receiver.came} == {receiver.came[0].body}
    assert json.loads(receiver.came[0].body)["data"]["id"] == id


def test_an_edge_goes_on_beside_what_it_cannot_read(start_edge, predictor, receiver, eventually):
    edge = start_edge(predictor.url, webhook_networks="any")
    with edge.client(edge.key("--name", "owner")) as client:
        first = create(client, **SHORT, webhook_url=f"{receiver.url}/hook")
        ended(client, first)
        eventually(lambda: len(receiver.came) == 1)
        columns = "tenant, fingerprint, images, megapixel_steps, revision, cacheable, attempt, created, deadline"
        execute(
            edge,
            f"INSERT INTO generations (id, state, request, {columns}) "
            f"SELECT 'gen_broken', 'waiting', '{{}}', {columns} FROM generations",
        )
        eventually(lambda: '"generation": "gen_broken"' in edge.log)
        second = create(client, **SHORT, webhook_url=f"{receiver.url}/hook")
        assert_has_its_image(client, ended(client, second))
        eventually(lambda: len(receiver.came) == 2)


def test_a_job_outlives_its_predictor(start_edge, start_predictor):
    dying = start_predictor()
    edge = start_edge(dying.url)
    with edge.client(edge.key("--name", "owner")) as client:
        id = create(client, seed=12)
        until_it_draws(client, id)
        dying.popen.kill()
        dying.popen.wait()
        start_predictor(http_port=dying.http_port, ready=False)
        assert_has_its_image(client, ended(client, id))
    assert '"tried again"' in edge.log
    assert [line["images"] for line in lines(edge, id)] == [1]


def test_a_job_outlives_the_engine_alone(start_edge, start_predictor):
    predictor = start_predictor()
    edge = start_edge(predictor.url)
    with edge.client(edge.key("--name", "owner")) as client:
        id = create(client, seed=13)
        until_it_draws(client, id)
        os.kill(predictor.engine_pid(), signal.SIGKILL)
        assert_has_its_image(client, ended(client, id))


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_a_job_outlives_the_database(start_edge, predictor, postgresql, shared, database, how):
    edge = start_edge(predictor.url, **shared)
    with edge.client(edge.key("--name", "owner")) as client:
        id = create(client, seed=14)
        until_it_draws(client, id)
        getattr(postgresql, how)()
        refused = client.post("/v1/jobs", json=SHORT)
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "store_unavailable")
        assert int(refused.headers["retry-after"]) <= 120
        assert "asyncpg" not in refused.text
        postgresql.start()
        assert_has_its_image(client, ended(client, id))
    (generation,) = database[1]("SELECT state, attempt FROM generations")
    assert tuple(generation) == ("done", 1)
    assert [line["outcome"] for line in lines(edge, id)] == ["ok"]


def test_pictures_wait_for_a_store_that_is_away_and_are_not_made_again(start_edge, predictor, s3, tmp_path):
    settings = {"images_url": s3.url("survival"), "environment": s3.environment}
    edge = start_edge(predictor.url, **settings)
    with edge.client(edge.key("--name", "owner")) as client:
        id = create(client, seed=15)
        until_it_draws(client, id)
        s3.stop()
        wait_until(lambda: '"image store failed"' in edge.log, 60.0)
        s3.start()
        view = ended(client, id)
        assert (view["state"], view["error"]) == ("done", None)
        assert httpx.get(view["images"][0]["url"]).status_code == 200
    assert edge.metric("sdzero_edge_predictor_requests") == 1


def test_without_redis_what_costs_is_refused_and_what_is_there_is_given(
    start_edge, predictor, redis, shared, eventually
):
    closed, opened = (start_edge(predictor.url, **shared, quota_failure=failure) for failure in ("closed", "open"))
    key = closed.key("--name", "priced", "--megapixel-steps-per-minute", "1000")
    with closed.client(key) as client, opened.client(key) as elsewhere:
        made = client.post("/v1/images/generations", json=SHORT | {"seed": 1})
        assert (made.status_code, made.headers["x-cache"]) == (200, "miss")
        id = create(client, seed=16, num_inference_steps=2)
        assert_has_its_image(client, ended(client, id))
        redis.stop()
        try:
            refused = client.post("/v1/images/generations", json=SHORT | {"seed": 2})
            assert (refused.status_code, refused.json()["error"]["code"]) == (503, "store_unavailable")
            assert int(refused.headers["retry-after"]) <= 120
            assert closed.metric("sdzero_edge_quota_errors_total") == 1
            again = client.post("/v1/images/generations", json=SHORT | {"seed": 1})
            assert (again.status_code, again.headers["x-cache"]) == (200, "hit")
            assert again.json()["data"][0]["b64_json"] == made.json()["data"][0]["b64_json"]
            assert_has_its_image(client, client.get(f"/v1/jobs/{id}").json())
            assert elsewhere.post("/v1/images/generations", json=SHORT | {"seed": 2}).status_code == 200
            assert opened.metric("sdzero_edge_quota_errors_total") >= 1
        finally:
            redis.start()
        eventually(lambda: client.post("/v1/images/generations", json=SHORT | {"seed": 3}).status_code == 200)


def test_an_edge_that_is_told_to_stop_leaves_its_jobs_to_the_other(start_edge, predictor, shared, database):
    leaving = start_edge(predictor.url, **shared)
    key = leaving.key("--name", "owner")
    with leaving.client(key) as client:
        id = create(client, seed=17)
        until_it_draws(client, id)
        staying = start_edge(predictor.url, **shared)
        assert leaving.stop() == 0
    with staying.client(key) as client:
        assert_has_its_image(client, ended(client, id))
    (generation,) = database[1]("SELECT state, attempt FROM generations")
    assert tuple(generation) == ("done", 1)  # it was handed over, which is no failed start
    assert len(lines(staying, id)) == 1


def test_a_client_whose_time_an_edge_cuts_short_is_told_to_ask_again(start_edge, predictor, shared, database):
    leaving = start_edge(predictor.url, **shared)
    with leaving.client(leaving.key("--name", "owner")) as client:
        said = []
        asking = threading.Thread(
            target=lambda: said.append(client.post("/v1/images/generations", json=LONG | {"num_inference_steps": 150}))
        )
        asking.start()
        wait_until(lambda: leaving.metric("sdzero_edge_predictor_requests") == 1)
        assert leaving.stop() == 0
        asking.join()
    (reply,) = said
    assert (reply.status_code, reply.json()["error"]["code"]) == (503, "draining")
    assert int(reply.headers["retry-after"]) <= 120
    assert "Exception in ASGI application" not in leaving.log
    assert [tuple(job) for job in database[1]("SELECT state, held_until FROM jobs")] == [("cancelled", None)]


def test_what_one_edge_runs_is_followed_and_cancelled_at_the_other(start_edge, start_predictor, shared, eventually):
    predictor = start_predictor()
    edges = [start_edge(predictor.url, **shared) for _ in range(2)]
    key = edges[0].key("--name", "owner")
    with edges[0].client(key) as client:
        id = create(client, num_inference_steps=150, size="192x192")
        until_it_draws(client, id)
    other, running = sorted(edges, key=lambda edge: edge.metric("sdzero_edge_predictor_requests"))
    assert other.metric("sdzero_edge_predictor_requests") == 0
    with other.client(key) as client:
        with events(client, id) as heard:
            steps = (data["step"] for _, name, data in heard if name == "progress")
            first = list(itertools.islice(steps, 5))
        assert first == sorted(first)
        assert predictor.metric("sdzero_images_in_flight") == 1
        assert client.delete(f"/v1/jobs/{id}").json()["state"] == "cancelled"
        assert ended(client, id)["state"] == "cancelled"
    eventually(lambda: predictor.metric("sdzero_images_in_flight") == 0)
    with running.client(key) as client:
        assert client.get(f"/v1/jobs/{id}").json()["error"]["code"] == "cancelled"
    assert [line["outcome"] for line in lines(other, id)] == ["cancelled"]
