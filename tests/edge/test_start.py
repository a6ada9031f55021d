"""How an edge starts, fails to, and ends, as whoever deploys it sees it."""

import asyncio
import contextlib
import itertools
import json
import signal
import sqlite3
import subprocess
import sys

import httpx
import pytest

from tests.edge.running import ROOT
from tests.edge.waiting_clients import quick_predictor, revision_of
from tests.processes import free_port, wait_until

NOWHERE = "http://127.0.0.1:9"
SECRET = "signs links and names images in tests"
PASSWORD = "hunter2"
_numbers = itertools.count()


def a_key() -> str:
    return f"sk-sdz-{next(_numbers):043}"


def secretly(url: str) -> str:
    """The same address, with a password that nobody asks for."""
    kind, _, place = url.partition("://")
    return f"{kind}://postgres:{PASSWORD}@{place.rpartition('@')[2]}"


def spoken(log: str) -> list[dict]:
    """The lines of a log, each of which is JSON."""
    return [json.loads(line) for line in log.splitlines()]


def said(edge, event: str) -> int:
    return sum(line["event"] == event for line in spoken(edge.log[: edge.log.rfind("\n") + 1]))


def statuses(edge, key: str) -> list[int]:
    with edge.client(key) as client:
        return [client.get(path).status_code for path in ("/v1/models", "/v1/usage", "/v1/audit")]


def test_the_first_key_opens_everything_from_the_first_start_until_it_is_revoked(start_edge, sdzero):
    key = a_key()
    edge = start_edge(NOWHERE, environment={"SDZERO_FIRST_KEY": key})
    data = ("--data", edge.folder / "data")
    for _ in range(2):
        assert statuses(edge, key) == [200, 200, 200]
        assert statuses(edge, key[:-1] + "x") == [401, 401, 401]
        assert edge.stop() == 0
        edge.start()
    (first,) = json.loads(sdzero("keys", "list", "--json", *data).stdout)
    assert (first["name"], first["scopes"]) == ("first", ["admin", "generate", "read"])
    assert sdzero("keys", "revoke", first["id"], *data).returncode == 0
    edge.stop()
    edge.start()
    assert statuses(edge, key) == [401, 401, 401]
    assert [line["key"] for line in spoken(edge.log) if line["event"] == "first key"] == [first["id"]]
    assert key not in edge.log
    assert key.encode() not in b"".join(file.read_bytes() for file in (edge.folder / "data").glob("sdzero.db*"))


def test_edges_that_start_at_once_have_one_first_key(start_edge, postgresql):
    settings = {"database_url": postgresql.create("firstkey"), "secret": SECRET, "first_key": a_key()}
    edges = [start_edge(NOWHERE, ready=False, **settings) for _ in range(3)]
    for edge in edges:
        wait_until(edge.is_ready, 60.0)
        assert statuses(edge, settings["first_key"]) == [200, 200, 200]
    assert sum(said(edge, "first key") for edge in edges) == 1
    assert [row["name"] for row in postgresql.execute("SELECT name FROM keys", "firstkey")] == ["first"]


def test_an_edge_waits_for_a_database_that_starts_later(start_edge, postgresql):
    url = secretly(postgresql.create("later"))
    postgresql.stop()
    try:
        edge = start_edge(NOWHERE, ready=False, database_url=url, secret=SECRET)
        wait_until(lambda: said(edge, "database away") >= 1, 30.0)
        assert edge.popen.poll() is None
    finally:
        postgresql.start()
    wait_until(edge.is_ready, 60.0)
    assert "Traceback" not in edge.log
    assert PASSWORD not in edge.log


def test_an_edge_that_waits_for_its_database_can_be_told_to_stop(start_edge):
    url = f"postgresql://edge:{PASSWORD}@127.0.0.1:{free_port()}/name"
    edge = start_edge(NOWHERE, ready=False, database_url=url, secret=SECRET)
    wait_until(lambda: said(edge, "database away") >= 1, 30.0)
    edge.popen.send_signal(signal.SIGTERM)
    assert edge.popen.wait(20) == 1
    assert "Traceback" not in edge.log


def test_an_edge_whose_database_stays_away_ends_with_one_line(tmp_path):
    url = f"postgresql://edge:{PASSWORD}@127.0.0.1:{free_port()}/name"
    program = (
        "import sys; from predictor.edge import app; from predictor.edge.settings import EdgeSettings\n"
        "app.PATIENCE = 1.5\n"
        "sys.exit(app.main(EdgeSettings("
        f"predictor_url='{NOWHERE}', data={str(tmp_path)!r}, database_url={url!r}, secret={SECRET!r}, metrics_port=0)))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=False, timeout=60
    )
    assert (ended.returncode, ended.stderr) == (1, "")
    *tries, last = spoken(ended.stdout)
    assert len(tries) >= 2
    assert {line["event"] for line in tries} == {"database away"}
    assert (last["event"], last["level"]) == ("the edge has ended", "error")
    assert last["said"].startswith("the database does not answer: ")
    assert PASSWORD not in ended.stdout


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"blocklist": "nowhere.txt"}, "nowhere.txt"),
        ({"capabilities": "nowhere.json"}, "nowhere.json"),
        ({"database_url": "mysql://root:hunter2@host/name", "secret": SECRET}, "--database-url: got an address of"),
        ({"redis_url": "http://:hunter2@host"}, "--redis-url: got another kind of address"),
        ({"redis_url": "redis://:hunt/er2@host:6379/0"}, "--redis-url: cannot be read as an address"),
        ({"redis_url": "redis://:hunter2@host:port/0"}, "--redis-url: cannot be read as an address"),
    ],
)
def test_a_setting_that_cannot_be_followed_ends_the_edge_with_one_line(start_edge, wrong, words):
    edge = start_edge(NOWHERE, ready=False, **wrong)
    assert edge.popen.wait(60) == 1
    last = spoken(edge.log)[-1]
    assert (last["event"], last["level"]) == ("the edge has ended", "error")
    assert words in last["said"]
    assert "Traceback" not in edge.log
    assert "hunt" not in edge.log


def test_an_edge_starts_without_its_redis(start_edge):
    edge = start_edge(NOWHERE, redis_url=f"redis://:{PASSWORD}@127.0.0.1:{free_port()}/0")
    assert httpx.get(f"{edge.url}/readyz").status_code == 200
    assert statuses(edge, edge.key("--name", "a", "--scopes", "read,admin,generate")) == [200, 200, 200]
    assert PASSWORD not in edge.log


async def test_an_edge_that_is_told_to_stop_writes_down_what_it_noted(start_edge, capabilities_file):
    port = free_port()
    edge = start_edge(f"http://127.0.0.1:{port}")
    key = edge.key("--name", "owner")
    asked = {"prompt": "a red circle", "size": "64x64", "num_inference_steps": 2, "seed": 1}

    def ask(times: int, **fields) -> list[int]:
        with edge.client(key) as client:
            return [client.post("/v1/images/generations", json=asked | fields).status_code for _ in range(times)]

    async with quick_predictor(port, revision_of(capabilities_file)):
        assert await asyncio.to_thread(ask, 1) == [200]
    assert (ask(20), ask(20, size="7x7")) == ([200] * 20, [400] * 20)
    assert edge.stop() == 0
    with contextlib.closing(sqlite3.connect(edge.folder / "data" / "sdzero.db")) as connection:
        counts = connection.execute("SELECT action, count(*) FROM ledger GROUP BY action ORDER BY action").fetchall()
    assert counts == [("cached", 20), ("generate", 1), ("key.create", 1), ("refused", 20)]
