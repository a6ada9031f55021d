"""Which synchronous jobs an edge holds: those that a connection waits for, and no others."""

import asyncio
import contextlib
import json
import socket
import sqlite3

import pytest
from prometheus_client import CollectorRegistry
from sqlalchemy import event

from predictor.asgi.tracing import Tracer
from predictor.edge.bus import MemoryBus
from predictor.edge.dispatcher import Dispatcher
from predictor.edge.holding import Holding
from predictor.edge.metrics import Metrics
from predictor.edge.stores.database import Database
from predictor.edge.stores.jobs import Jobs
from tests.edge.stores.given import admitted, an_admission, announce
from tests.processes import free_port, wait_until


class Nobody:
    """Makes no pictures, and must not be asked to."""


class Edge:
    """As much of an edge as holds jobs, with hands on its clock."""

    def __init__(self, database: Database) -> None:
        self.now = 100.0
        self.jobs = Jobs(database, announce)
        bus = MemoryBus()
        dispatcher = Dispatcher(
            "edge",
            jobs=self.jobs,
            maker=Nobody(),
            bus=bus,
            metrics=Metrics(CollectorRegistry()),
            tracer=Tracer("tests", "shapes"),
            images_in_flight=1,
            attempts=1,
            clock=lambda: self.now,
        )
        self.holding = Holding(self.jobs, bus, dispatcher, lambda: self.now)

    async def active(self) -> list[str]:
        page, _ = await self.jobs.page(tenant=None, key_id=None, state="active", limit=100, after=None)
        return [job.id for job in page]

    async def abandoned(self) -> list[str]:
        return [job.id for job in await self.jobs.abandoned(self.now)]


@pytest.fixture
async def database(tmp_path):
    opened = await Database.open(f"sqlite:///{tmp_path / 'sdzero.db'}")
    yield opened
    await opened.close()


async def test_a_client_that_hangs_up_amid_the_commit_of_its_job_leaves_one_that_ends(database):
    edge = Edge(database)
    held = await admitted(edge.jobs, holder="edge", held_until=130.0)

    @event.listens_for(database._engine.sync_engine, "commit")
    def hang_up(_: object) -> None:
        admitting.cancel()

    admission = an_admission(holder="edge", held_until=130.0)
    admitting = asyncio.create_task(edge.jobs.admit(admission, 100.0, 1000))
    await asyncio.wait([admitting])
    event.remove(database._engine.sync_engine, "commit", hang_up)
    assert admitting.cancelled()
    assert sorted(await edge.active()) == sorted([held.id, admission.job.id]), "it was written down all the same"

    with edge.holding.held(held, will_retry=False):
        for edge.now in (128.0, 156.0):
            await edge.holding.keep()
        edge.now = 157.0
        assert await edge.abandoned() == [admission.job.id]
        assert await edge.active() == [held.id]


async def test_a_job_is_held_until_the_last_of_its_connections_has_gone(database):
    edge = Edge(database)
    job = await admitted(edge.jobs, holder="edge", held_until=130.0)

    async def waits(gone: asyncio.Event) -> None:
        with edge.holding.held(job, will_retry=False):
            await gone.wait()
            raise ConnectionError

    first, last = asyncio.Event(), asyncio.Event()
    connections = [asyncio.create_task(waits(gone)) for gone in (first, last)]
    await asyncio.sleep(0)
    edge.now = 120.0
    await edge.holding.keep()
    first.set()
    await asyncio.wait(connections[:1])
    edge.now = 140.0
    await edge.holding.keep()
    assert (await edge.abandoned(), await edge.active()) == ([], [job.id])
    last.set()
    await asyncio.wait(connections)
    await edge.holding.close()
    assert await edge.active() == []


def test_an_edge_says_again_and_again_that_a_client_waits_and_then_that_it_has_gone(start_edge):
    edge = start_edge(f"http://127.0.0.1:{free_port()}")
    body = json.dumps({"prompt": "a red circle", "size": "64x64"}).encode()
    head = f"POST /v1/images/generations HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {edge.key('--name', 'a')}\r\n"

    def job() -> tuple[str, float | None] | None:
        with contextlib.closing(sqlite3.connect(edge.folder / "data" / "sdzero.db")) as connection:
            return connection.execute("SELECT state, held_until FROM jobs").fetchone()

    with socket.create_connection(("127.0.0.1", edge.http_port)) as client:
        client.sendall(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
        wait_until(job, 30.0)
        for _ in range(2):
            _, until = job()
            wait_until(lambda until=until: job()[1] > until, 30.0)
        assert job()[0] == "active"
    wait_until(lambda: job() == ("cancelled", None), 30.0)
