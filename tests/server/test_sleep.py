"""An engine that nobody needs ends, the server stays ready, and whoever asks next gets a new one's answer."""

import asyncio
import concurrent.futures
import json
import os
import re
import signal
import socket
from pathlib import Path

import httpx
import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
from prometheus_client import CollectorRegistry

from predictor.server.metrics import Metrics
from predictor.server.sleep import Sleep
from tests.asgi.collector import collector

GATED = {"FAKE_GATE": "{folder}/gate"}
SOON = 0.05
WAKES, RESTARTS = "sdzero_engine_wakes_total", "sdzero_engine_restarts_total"


@pytest.fixture
def threads():
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        yield pool


@pytest.fixture
def drowsy(start, until):
    """A server that sleeps; its engine is ready only while there is the gate, which is shut now."""
    server = start(engine=GATED, wait=False, sleep_after_seconds=SOON, queue_images=16)
    server.gate.touch()
    until(server.has_port)
    until(server.sleeps)
    server.gate.unlink()
    return server


def ask(server, threads, requests, until, body, engine=True):
    """Requests that wait for the engine; returns their futures once the server has them all."""
    before = server.metric("sdzero_images_in_flight")
    futures = [threads.submit(httpx.post, server.infer, json=body, timeout=30) for _ in range(requests)]
    images = requests * body["parameters"].get("num_images", 1)
    until(lambda: server.metric("sdzero_images_in_flight") == before + images)
    until(server.engine_runs)
    return futures


def events(server):
    return [line["event"] for line in server.log if line["logger"] == "sdzero.server"]


def stages(reply):
    """Milliseconds by name."""
    return {name: float(dur) for name, dur in re.findall(r"([\w.-]+);dur=([\d.]+)", reply.headers["server-timing"])}


class Naps:
    """A `Sleep` whose engine is a counter of its ends."""

    def __init__(self, after):
        self.ends = 0
        self.sleep = Sleep(after, self._end, Metrics("sd", CollectorRegistry()))
        self._after = after

    def _end(self):
        self.ends += 1

    async def counted(self):
        """Its ends, once a timer of now would have gone off: those of one loop do in the order of their times."""
        await asyncio.sleep(self._after + 0.001)
        return self.ends


async def test_it_begins_only_while_it_is_allowed_and_once():
    naps = Naps(0.01)
    naps.sleep.allow()
    naps.sleep.forbid()
    assert await naps.counted() == 0
    naps.sleep.allow()
    naps.sleep.allow()
    assert await naps.counted() == 1
    assert naps.sleep.begun
    over = asyncio.create_task(naps.sleep.over())
    assert await naps.counted() == 1
    assert not over.done()
    naps.sleep.forbid()
    assert await over > 0
    assert not naps.sleep.begun


async def test_after_0_seconds_is_never():
    naps = Naps(0.0)
    naps.sleep.allow()
    assert await naps.counted() == 0


def test_an_idle_engine_ends_and_the_server_stays_ready(drowsy):
    assert not drowsy.engine_runs()
    assert drowsy.engine_notes == ["start"]
    for path in ("health/live", "health/ready", "models/sd/ready", "models/sd", "models/sd/capabilities"):
        assert httpx.get(f"{drowsy.url}/v2/{path}").status_code == 200
    assert httpx.get(f"{drowsy.url}/v1/models/sd").json() == {"name": "sd", "ready": True}
    assert httpx.get(f"{drowsy.url}/timeline").json()["ready"] is True
    with triton_grpc.InferenceServerClient(drowsy.grpc) as client:
        assert client.is_server_ready()
        assert client.is_model_ready("sd")
        assert client.get_model_metadata("sd").name == "sd"
    assert (drowsy.metric("sdzero_ready"), drowsy.metric("sdzero_asleep")) == (1, 1)
    assert (drowsy.metric(WAKES), drowsy.metric(RESTARTS)) == (0, 0)
    assert events(drowsy) == ["ready", "asleep"]
    assert [line["level"] for line in drowsy.log if line["event"] == "asleep"] == ["info"]
    # Whatever is refused needs no engine.
    assert httpx.post(drowsy.infer, json={"inputs": []}).status_code == 400
    assert drowsy.engine_notes == ["start"]
    assert not list(drowsy.folder.glob("sdzero-*"))


def test_the_next_request_waits_for_a_new_engine_and_tells_of_its_start(start, until, infer_body):
    server = start(sleep_after_seconds=SOON)
    until(server.sleeps)
    for wakes in (1, 2):
        reply = httpx.post(server.infer, json=infer_body(seed=7), timeout=20)
        assert reply.status_code == 200
        assert reply.json()["parameters"]["cold_start"] is True
        spent = stages(reply)
        assert {"cold-server-engine_ready", "cold-server-first_request", "cold-engine-weights_read"} <= spent.keys()
        # What the pod did for its own start, long ago, is no part of this one.
        assert not {"cold-server-interpreter", "cold-server-imports", "cold-server-assembled"} & spent.keys()
        assert spent["cold-engine-weights_read"] <= spent["cold-server-engine_ready"] <= spent["queue"] < spent["total"]
        until(server.sleeps)
        assert (server.metric(WAKES), server.metric(RESTARTS)) == (wakes, 0)
        timeline = httpx.get(f"{server.url}/timeline").json()
        assert timeline["phases"][-1]["name"] == "first_image"
        assert timeline["seconds"] < spent["total"] / 1000 + 0.1  # not since the pod's start
    assert events(server) == ["ready", "asleep", *["woken", "ready", "asleep"] * 2]
    assert server.metric("sdzero_queue_seconds_sum") > 0.002  # of two requests, each with 1 ms in the engine


def test_each_start_is_in_the_trace_of_who_waited_for_it(start, until, infer_body):
    with collector() as collected:
        # No exports on the way: what arrives is what the end of the process sends.
        traced = {"OTEL_EXPORTER_OTLP_ENDPOINT": collected.url, "OTEL_BSP_SCHEDULE_DELAY": "3600000"}
        server = start(engine=traced, sleep_after_seconds=SOON)
        for number in range(1, 3):
            until(server.sleeps)
            caller = {"traceparent": f"00-{str(number) * 32}-b7ad6b7169203331-01"}
            assert httpx.post(server.infer, json=infer_body(), headers=caller, timeout=20).status_code == 200
        server.popen.terminate()
        assert server.popen.wait(20) == 0
        spans = collected.spans
    for number in range(1, 3):
        told = {span.name: span for span in spans if span.trace == str(number) * 32}
        asked, woken = told["POST /v2/models/{model}/infer"], told["cold_start"]
        inner = {span.name for span in spans if span.parent == woken.id}
        assert inner == {"engine imports", "engine weights_read", "server engine_ready"}
        # The engine's process is stamped in ticks of the kernel, 10 ms.
        assert asked.began - 0.01 <= woken.began < woken.ended <= asked.ended


def test_the_pixels_are_those_of_before(start_predictor, request, eventually):
    bundle = request.getfixturevalue("demo_bundle")
    for served in ({}, {"model": None, "bundle": bundle}):
        predictor = start_predictor(**served, sleep_after_seconds=0.5)
        first = predictor.picture("a red circle", seed=3, steps=2)
        eventually(lambda predictor=predictor: predictor.metric("sdzero_asleep") == 1)
        wakes = predictor.metric(WAKES)
        again = predictor.picture("a red circle", seed=3, steps=2)
        assert predictor.metric(WAKES) == wakes + 1
        assert np.array_equal(first, again)


def test_ten_requests_at_a_sleeping_server_start_one_engine(drowsy, threads, until, infer_body):
    futures = ask(drowsy, threads, 10, until, infer_body())
    assert drowsy.is_ready()
    assert drowsy.metric("sdzero_asleep") == 0
    drowsy.gate.touch()
    replies = [future.result(timeout=20) for future in futures]
    assert [reply.status_code for reply in replies] == [200] * 10
    assert all(reply.json()["parameters"]["cold_start"] for reply in replies)
    assert drowsy.engine_notes == ["start", "start", *(f"generate {id}" for id in range(1, 11))]
    assert drowsy.metric(WAKES) == 1


@pytest.mark.parametrize("dialect", ["stream", "grpc"])
def test_every_dialect_wakes(drowsy, dialect):
    drowsy.gate.touch()
    if dialect == "stream":
        route = f"{drowsy.url}/v2/models/sd/generate_stream"
        with httpx.stream("POST", route, json={"prompt": "red"}, timeout=20) as reply:
            told = [line for line in reply.iter_lines() if line.startswith("event: ")]
        assert (told[0], told[1], told[-1]) == ("event: accepted", "event: progress", "event: done")
    else:
        prompt = triton_grpc.InferInput("prompt", [1], "BYTES")
        prompt.set_data_from_numpy(np.array([b"red"], object))
        with triton_grpc.InferenceServerClient(drowsy.grpc) as client:
            assert len(client.infer("sd", [prompt]).as_numpy("image")) == 1
    assert drowsy.metric(WAKES) == 1


def test_a_request_that_comes_while_the_engine_ends_goes_to_the_next_one(start, until, threads, infer_body):
    server = start(engine={"FAKE_STUBBORN": "1"}, sleep_after_seconds=SOON)
    until(lambda: "told to end" in server.engine_notes)
    replies = [threads.submit(httpx.post, server.infer, json=infer_body(), timeout=30) for _ in range(3)]
    assert {reply.result(timeout=30).status_code for reply in replies} == {200}
    lives = server.engine_notes
    assert lives[:3] == ["start", "told to end", "start"]
    assert sorted(lives[3:6]) == ["generate 1", "generate 2", "generate 3"]


def test_no_request_is_lost_however_often_it_sleeps(start, infer_body):
    server = start(sleep_after_seconds=0.001)
    with httpx.Client(timeout=20) as client:
        replies = [client.post(server.infer, json=infer_body(seed=seed)) for seed in range(15)]
    assert {reply.status_code for reply in replies} == {200}
    told = [note for note in server.engine_notes if note != "start"]
    assert told == [f"generate {id}" for id in range(1, 16)]  # each once
    assert server.engine_notes.count("start") == 1 + server.metric(WAKES) > 2
    assert server.metric(RESTARTS) == 0
    assert {line["level"] for line in server.log} == {"info"}


def test_a_long_request_is_no_idle_time(start, until, threads, infer_body):
    server = start(engine={"FAKE_RELEASE": "{folder}/release"}, sleep_after_seconds=SOON)
    (running,) = ask(server, threads, 1, until, infer_body("hold"))
    # As long as another needs for falling asleep twice.
    other = start(sleep_after_seconds=SOON)
    assert httpx.post(other.infer, json=infer_body(), timeout=20).status_code == 200
    until(lambda: events(other)[-1] == "asleep")
    assert server.engine_notes[-1] == "generate 1"
    (server.folder / "release").touch()
    assert running.result(timeout=20).status_code == 200
    until(server.sleeps)
    assert server.engine_notes.count("generate 1") == 1


def test_an_engine_killed_while_it_wakes_answers_everyone_and_another_starts(drowsy, threads, until, infer_body):
    futures = ask(drowsy, threads, 3, until, infer_body())
    os.kill(drowsy.engine_pid(), signal.SIGKILL)
    for future in futures:
        reply = future.result(timeout=20)
        assert (reply.status_code, reply.json()["code"]) == (503, "engine_lost")
        assert reply.json()["error"] == "the engine ended while it was starting for the request"
        assert reply.headers["x-should-retry"] == "true"
    assert not drowsy.is_ready()
    assert drowsy.metric("sdzero_ready") == 0
    drowsy.gate.touch()
    until(drowsy.is_ready)
    assert httpx.post(drowsy.infer, json=infer_body(), timeout=20).status_code == 200
    assert drowsy.metric(RESTARTS) == 1
    assert "engine died" in events(drowsy)
    until(drowsy.sleeps)


def test_an_engine_killed_while_it_sleeps_in_is_not_missed(start, until, infer_body):
    """Killed or told to end: an engine whose end is meant is no death."""
    server = start(engine={"FAKE_STUBBORN": "1"}, sleep_after_seconds=SOON)
    until(lambda: "told to end" in server.engine_notes)
    os.kill(server.engine_pid(), signal.SIGKILL)
    until(server.sleeps)
    assert server.is_ready()
    assert events(server) == ["ready", "asleep"]


def test_an_idle_engine_that_is_killed_awake_is_restarted(start, until, infer_body):
    server = start(sleep_after_seconds=3600)
    os.kill(server.engine_pid(), signal.SIGKILL)
    until(lambda: server.metric(RESTARTS) == 1)
    until(server.is_ready)
    assert httpx.post(server.infer, json=infer_body(), timeout=20).status_code == 200
    assert server.metric("sdzero_asleep") == 0


def test_a_woken_engine_that_cannot_start_ends_the_server_with_its_words(start, until, threads, infer_body):
    server = start(engine={"FAKE_FAIL": "no GPU", "FAKE_WELL": "{folder}/well"}, wait=False, sleep_after_seconds=SOON)
    # The first is well in time: it looks only after Python has started.
    (server.folder / "well").touch()
    until(server.has_port)
    until(server.sleeps)
    (server.folder / "well").unlink()
    reply = httpx.post(server.infer, json=infer_body(), timeout=20)
    assert (reply.status_code, reply.json()["code"]) == (503, "engine_lost")
    assert server.popen.wait(20) == 1
    assert "sdzero: no GPU" in server.stderr
    assert "Traceback" not in server.stderr


def test_woken_engines_that_keep_dying_end_the_server(start, until, infer_body):
    engine = {"FAKE_EXIT": "7", "FAKE_WELL": "{folder}/well"}
    server = start(engine=engine, wait=False, sleep_after_seconds=SOON, engine_restarts=1)
    (server.folder / "well").touch()
    until(server.has_port)
    until(server.sleeps)
    (server.folder / "well").unlink()
    reply = httpx.post(server.infer, json=infer_body(), timeout=20)
    assert (reply.status_code, reply.json()["code"]) == (503, "engine_lost")
    assert server.popen.wait(20) == 1
    assert server.engine_notes == ["start"] * 3
    assert "2 times in a row before it was ready, last with exit code 7" in server.stderr


def test_a_client_that_hangs_up_while_it_wakes_is_forgotten(drowsy, until, infer_body):
    cancelled = 'sdzero_requests_total{outcome="cancelled"}'
    body = json.dumps(infer_body()).encode()
    head = f"POST /v2/models/sd/infer HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", drowsy.http_port), 10) as client:
        client.sendall(head.encode() + body)
        until(lambda: drowsy.metric("sdzero_images_in_flight") == 1)
    until(lambda: drowsy.metric(cancelled) == 1)
    assert drowsy.metric("sdzero_images_in_flight") == 0
    drowsy.gate.touch()
    until(drowsy.sleeps)  # again, for nobody is left
    assert drowsy.metric(WAKES) == 1
    assert drowsy.engine_notes == ["start", "start"]
    assert httpx.post(drowsy.infer, json=infer_body(), timeout=20).status_code == 200


def test_the_start_is_within_a_request_s_deadline(start, until, infer_body):
    server = start(engine=GATED, wait=False, sleep_after_seconds=SOON, timeout_seconds=0.5)
    server.gate.touch()
    until(server.has_port)
    until(server.sleeps)
    server.gate.unlink()
    reply = httpx.post(server.infer, json=infer_body(), timeout=20)
    assert (reply.status_code, reply.json()["code"]) == (504, "deadline_exceeded")
    assert reply.json()["error"] == "the request's time ran out before an engine was ready"
    assert server.is_ready()
    server.gate.touch()
    until(server.sleeps)
    assert server.engine_notes == ["start", "start"]


def test_the_queue_s_limit_holds_while_it_wakes(drowsy, threads, until, infer_body):
    futures = ask(drowsy, threads, 4, until, infer_body(num_images=4))
    full = httpx.post(drowsy.infer, json=infer_body(), timeout=20)
    assert (full.status_code, full.json()["code"]) == (429, "queue_full")
    drowsy.gate.touch()
    assert {future.result(timeout=20).status_code for future in futures} == {200}


def test_a_model_that_has_changed_meanwhile_is_told_to_whoever_waits(start, until, infer_body, tmp_path):
    revision = tmp_path / "revision"
    revision.write_text("old")
    server = start(engine={"FAKE_REVISION": str(revision)}, sleep_after_seconds=SOON)
    until(server.sleeps)
    revision.write_text("new")
    reply = httpx.post(server.infer, json=infer_body(), timeout=20)
    assert (reply.status_code, reply.json()["code"]) == (503, "engine_lost")
    assert reply.json()["error"] == "the model has changed while it slept"
    reply = httpx.post(server.infer, json=infer_body(), timeout=20)
    assert (reply.status_code, reply.json()["parameters"]["model_revision"]) == (200, "new")


def test_a_signal_while_it_sleeps_exits_0(drowsy):
    drowsy.popen.terminate()
    assert drowsy.popen.wait(10) == 0
    assert "Traceback" not in drowsy.stderr
    assert drowsy.engine_notes == ["start"]
    assert events(drowsy) == ["ready", "asleep", "draining"]


def test_a_signal_while_it_wakes_lets_the_request_finish(drowsy, threads, until, infer_body):
    (waiting,) = ask(drowsy, threads, 1, until, infer_body())
    drowsy.popen.terminate()
    until(lambda: not drowsy.is_ready())
    assert httpx.post(drowsy.infer, json=infer_body()).json()["code"] == "draining"
    drowsy.gate.touch()
    assert waiting.result(timeout=20).status_code == 200
    assert drowsy.popen.wait(10) == 0
    assert "Traceback" not in drowsy.stderr


def test_a_second_signal_while_it_wakes_does_not_wait(drowsy, threads, until, infer_body):
    (waiting,) = ask(drowsy, threads, 1, until, infer_body())
    engine = drowsy.engine_pid()
    drowsy.popen.terminate()
    until(lambda: not drowsy.is_ready())
    drowsy.popen.terminate()
    assert waiting.result(timeout=20).json()["code"] == "draining"
    assert drowsy.popen.wait(10) == 0
    assert not Path(f"/proc/{engine}").exists()
