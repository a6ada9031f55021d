"""Two thousand clients of one edge wait for a predictor that starts: all are held, and each gets its one outcome."""

import asyncio
import contextlib
import json
import os
import resource
import sqlite3
import statistics
import time
from pathlib import Path

import httpx
import pytest

from tests.edge.waiting_clients import client, quick_predictor, revision_of
from tests.processes import free_port

SYNC, STREAMS, JOBS = 1000, 500, 500
ALL = SYNC + STREAMS + JOBS
PICTURES = 250  # of them all: one waits for its own generation, and seven join it
PROBES = 30
BEATS = 2  # further signs of life of each stream, while all wait
AT_ONCE = 64  # that arrive together
MOST_MEMORY = 400 * 2**20  # bytes
OUTCOMES = ("done", "image_generation.completed")
SMALL = {"prompt": "a red circle", "size": "64x64", "num_inference_steps": 2}


@pytest.fixture
def many_files():
    """Two thousand sockets here, and in the processes that are started from here."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 3 * ALL:
        pytest.skip(f"RLIMIT_NOFILE: {hard}; needed: {3 * ALL}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 3 * ALL), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def memory(pid, key):
    """Bytes, of /proc/PID/status."""
    status = Path(f"/proc/{pid}/status").read_text()
    return 1024 * next(int(line.split()[1]) for line in status.splitlines() if line.startswith(f"{key}:"))


def cpu(pid):
    """Seconds of processor time so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def begun(edge, key, number):
    """The client of this number, with its request sent."""
    picture = number % PICTURES
    body = SMALL | {"prompt": f"a red circle {picture}", "seed": picture}
    if number < SYNC:
        return await client(edge.http_port, key, "POST", "/v1/images/generations", body)
    if number < SYNC + STREAMS:
        return await client(
            edge.http_port, key, "POST", "/v1/images/generations", body | {"stream": True}, streams=True
        )
    creator = await client(edge.http_port, key, "POST", "/v1/jobs", body)
    reply = await creator.reader.read()
    creator.writer.close()
    id = json.loads(reply.partition(b"\r\n\r\n")[2])["id"]
    return await client(edge.http_port, key, "GET", f"/v1/jobs/{id}/events", streams=True)


async def lag(probe):
    began = time.monotonic()
    assert (await probe.get("/healthz")).status_code == 200
    return time.monotonic() - began


async def test_two_thousand_clients_wait_for_one_start(many_files, start_edge, capabilities_file):
    port = free_port()
    edge = start_edge(f"http://127.0.0.1:{port}", log_level="warning")
    key, pid = edge.key("--name", "crowd"), edge.popen.pid
    turns = asyncio.Semaphore(AT_ONCE)
    clients, listening = [], []

    async def arrive(number):
        async with turns:
            clients.append(await begun(edge, key, number))
            listening.append(asyncio.create_task(clients[-1].listen()))

    async with httpx.AsyncClient(base_url=edge.url, timeout=30.0) as probe:
        began, spent = time.monotonic(), cpu(pid)
        await asyncio.gather(*(arrive(number) for number in range(ALL)))
        async with asyncio.timeout(120):
            while active(edge.folder / "data" / "sdzero.db") < ALL:  # noqa: ASYNC110  # of another process
                await asyncio.sleep(0.5)
        print(f"\n{ALL} came in {time.monotonic() - began:.1f} s, {cpu(pid) - spent:.1f} s of processor")

        began, spent = time.monotonic(), cpu(pid)
        before = {one: one.beats for one in clients if one.streams}
        lags = [await lag(probe) for _ in range(PROBES)]
        async with asyncio.timeout(120):
            while any(one.beats < beats + BEATS for one, beats in before.items()):  # noqa: ASYNC110  # of sockets
                await asyncio.sleep(0.1)
        share = (cpu(pid) - spent) / (time.monotonic() - began)
        print(f"waiting: {100 * share:.0f} % of a core, {memory(pid, 'VmRSS') / 2**20:.0f} MiB")
        print(f"lag: median {1000 * statistics.median(lags):.0f} ms, longest {1000 * max(lags):.0f} ms")
        assert len(before) == STREAMS + JOBS, "every stream says that it lives, again and again"
        assert not any(task.done() for task in listening), "all wait"

        began, spent = time.monotonic(), cpu(pid)
        async with quick_predictor(port, revision_of(capabilities_file)) as asked:
            async with asyncio.timeout(240):
                await asyncio.gather(*listening)
        print(f"all were answered in {time.monotonic() - began:.1f} s, {cpu(pid) - spent:.1f} s of processor")

    assert [one.ends for one in clients if len(one.ends) != 1 or one.ends[0] not in OUTCOMES] == []
    assert (len(asked), set(asked.values())) == (PICTURES, {1}), "each picture was made once"
    print(f"most memory: {memory(pid, 'VmHWM') / 2**20:.0f} MiB")
    assert memory(pid, "VmHWM") < MOST_MEMORY
    assert '"bug"' not in edge.log


def active(database):
    """Unfinished jobs."""
    with contextlib.closing(sqlite3.connect(database)) as connection:
        return connection.execute("SELECT count(*) FROM jobs WHERE state = 'active'").fetchone()[0]
