"""When queue-proxy's drain ends early: the rule on drawn looks, then with a real process that drains as it does."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from predictor.asgi.journal import Journal
from predictor.server import drain
from predictor.server.drain import CONVERGED, NAME, PORTS, Quiet, end_drain
from tests.processes import free_port

LOOKS = st.lists(st.tuples(st.floats(0.0, 3.0), st.booleans(), st.booleans()), max_size=30)


@given(LOOKS)
def test_a_drain_may_end_exactly_when_every_look_for_two_seconds_found_it_idle(looks):
    quiet, now = Quiet(), 0.0
    idle: list[float] = []  # the looks since the last that found no drain, or some work
    for pause, draining, busy in looks:
        now += pause
        idle = [*idle, now] if draining and not busy else []
        ends = quiet.lasts(now, draining=draining, busy=busy)
        assert ends == (bool(idle) and now - idle[0] >= CONVERGED)


@given(LOOKS, st.floats(0.01, 1.0))
def test_whatever_was_before_it_ends_at_last_once_all_is_done(looks, pause):
    quiet, now = Quiet(), 0.0
    for more, draining, busy in looks:
        quiet.lasts(now := now + more, draining=draining, busy=busy)
    done = now
    while not quiet.lasts(now := now + pause, draining=True, busy=False):
        assert now - done <= CONVERGED + pause


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Proxy:
    """A real process in the place of queue-proxy."""

    def __init__(self, port: int, name: str) -> None:
        self.port, self.name = port, name
        command = [sys.executable, str(Path(__file__).with_name("queue_proxy.py")), str(port), name]
        self.popen = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.says("listens")

    def says(self, line: str) -> None:
        assert self.popen.stdout is not None
        assert self.popen.stdout.readline().strip() == line

    def terminate(self) -> None:
        """What the kubelet does when the pod is to go."""
        self.popen.send_signal(signal.SIGTERM)
        self.says("drains")


@pytest.fixture
def proxies() -> Iterator[Callable[..., Proxy]]:
    made: list[Proxy] = []

    def start(port: int | None = None, name: str | None = None) -> Proxy:
        port = port or free_port()
        made.append(Proxy(port, name or f"queue-{port}"))
        return made[-1]

    yield start
    for proxy in made:
        proxy.popen.kill()
        proxy.popen.communicate()


class Looks:
    """`end_drain` on one port; `seen` are the answers of queue-proxy, one for each look."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, port: int, name: str = "nobody") -> None:
        self.seen: list[bool | None] = []
        self.clock, self.journal = Clock(), Journal(lambda *_: None, log_prompts=False)
        ask = drain._drains

        async def asked(port: int) -> bool | None:
            self.seen.append(await ask(port))
            return self.seen[-1]

        monkeypatch.setattr(drain, "_drains", asked)
        self.task = asyncio.create_task(end_drain(self.journal, [port], name, look=0.01, clock=self.clock))

    async def more(self, answer: bool | None, looks: int = 3) -> None:
        """Until so many more looks had this answer; the last may still be under way."""
        first = len(self.seen)
        async with asyncio.timeout(20):
            while self.seen[first:].count(answer) <= looks:
                assert not self.task.done()
                await asyncio.sleep(0.01)

    async def end(self) -> None:
        async with asyncio.timeout(20):
            await self.task


async def test_an_idle_drain_is_ended_after_two_seconds_and_not_before(proxies, monkeypatch):
    proxy = proxies()
    looks = Looks(monkeypatch, proxy.port, proxy.name)
    await looks.more(False)
    looks.clock.now = 1000.0  # idle for long: that alone ends nothing
    await looks.more(False)
    proxy.terminate()
    await looks.more(True)
    looks.clock.now += CONVERGED - 0.1
    await looks.more(True)
    assert proxy.popen.poll() is None
    looks.clock.now += 0.1
    with capture_logs() as lines:
        await looks.end()
    assert proxy.popen.wait(20) == 1, "by its second SIGTERM, not of itself"
    assert [line["event"] for line in lines] == ["drain ended"]


async def test_what_runs_is_finished_first_however_long_it_takes(proxies, monkeypatch):
    proxy = proxies()
    looks = Looks(monkeypatch, proxy.port, proxy.name)
    await looks.more(False)
    with looks.journal.entry("a", "rest"):
        proxy.terminate()
        for _ in range(3):
            looks.clock.now += 100.0
            await looks.more(True)
    await looks.more(True)
    assert proxy.popen.poll() is None, "two seconds count from its end"
    with looks.journal.entry("b", "rest"):  # between two looks, and over before the next one
        looks.clock.now += CONVERGED
    await looks.more(True)
    assert proxy.popen.poll() is None, "somebody still sends here"
    looks.clock.now += CONVERGED
    await looks.end()
    assert proxy.popen.wait(20) == 1


async def test_nobody_is_signalled_who_is_not_seen_to_serve_as_queue_proxy(proxies, monkeypatch):
    proxy = proxies()
    proxy.terminate()
    looks = Looks(monkeypatch, proxy.port, proxy.name)
    await looks.more(True)
    looks.clock.now += 1000.0
    await looks.more(True)
    assert proxy.popen.poll() is None
    looks.task.cancel()


async def test_a_port_that_answers_otherwise_is_left_alone(monkeypatch):
    async def stranger(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(stranger, "127.0.0.1") as server:
        looks = Looks(monkeypatch, server.sockets[0].getsockname()[1])
        await looks.more(None)
        looks.task.cancel()


async def test_without_a_shared_namespace_one_line_says_so_and_that_is_all(proxies, monkeypatch):
    proxy = proxies()
    with capture_logs() as lines:
        looks = Looks(monkeypatch, proxy.port, "not-seen")
        await looks.end()
    assert [(line["log_level"], line["event"]) for line in lines] == [("warning", "drains are not ended")]
    assert "'not-seen'" in lines[0]["said"]
    assert "shareProcessNamespace" in lines[0]["said"]
    assert proxy.popen.poll() is None


async def test_which_of_two_is_meant_is_not_guessed(proxies, monkeypatch):
    proxy = proxies()
    other = proxies(name=proxy.name)
    with capture_logs() as lines:
        await Looks(monkeypatch, proxy.port, proxy.name).end()
    assert [line["event"] for line in lines] == ["drains are not ended"]
    assert proxy.popen.poll() is other.popen.poll() is None


async def test_a_process_of_another_user_is_not_taken_for_it(proxies, monkeypatch):
    proxy = proxies()
    monkeypatch.setattr(os, "getuid", lambda: 65533)
    with capture_logs() as lines:
        await Looks(monkeypatch, proxy.port, proxy.name).end()
    assert "of user 65533" in lines[0]["said"]


async def test_a_signal_that_is_refused_is_told_once(proxies, monkeypatch):
    def forbidden(process: int, number: int) -> None:
        raise PermissionError(1, "Operation not permitted")

    proxy = proxies()
    looks = Looks(monkeypatch, proxy.port, proxy.name)
    await looks.more(False)
    proxy.terminate()
    await looks.more(True)
    monkeypatch.setattr(os, "kill", forbidden)
    looks.clock.now += CONVERGED
    with capture_logs() as lines:
        await looks.end()
    assert [(line["log_level"], line["event"]) for line in lines] == [("warning", "drains are not ended")]


def test_a_server_that_is_to_end_drains_does_so_when_its_last_request_is_done(
    start, proxies, until, infer_body, tmp_path
):
    with socket.socket() as probe:
        try:
            probe.bind(("", PORTS[0]))
        except OSError:
            pytest.skip(f"port {PORTS[0]}, queue-proxy's, is taken")
    proxy = proxies(PORTS[0], NAME)
    release = tmp_path / "release"
    server = start(engine={"FAKE_RELEASE": str(release)}, end_drain=True)
    with httpx.Client(timeout=30) as client:
        request = client.build_request("POST", f"{server.url}/v2/models/sd/generate_stream", json={"prompt": "hold"})
        response = client.send(request, stream=True)
        events = response.iter_lines()
        assert next(events) == "event: accepted"
        proxy.terminate()
        assert proxy.popen.poll() is None
        release.touch()
        assert "event: done" in list(events)
    assert proxy.popen.wait(20) == 1
    until(lambda: any(line["event"] == "drain ended" for line in server.log))
