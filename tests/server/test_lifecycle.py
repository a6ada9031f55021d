"""Starting, losing an engine, and ending, with real processes and signals."""

import concurrent.futures
import json
import os
import signal
import socket
import time
from pathlib import Path

import httpx
import numpy as np
import pytest
import tritonclient.grpc as triton_grpc

GATED = {"FAKE_GATE": "{folder}/gate"}


@pytest.fixture
def threads():
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        yield pool


@pytest.fixture(scope="module")
def sturdy(start):
    """A server whose engine some tests kill; each leaves it ready."""
    return start(queue_images=4)


def hold(server, threads, requests, until, body):
    """Requests that run until something ends them; returns their futures once the engine has them all."""
    before = sum(note.startswith("generate") for note in server.engine_notes)
    futures = [threads.submit(httpx.post, server.infer, json=body, timeout=30) for _ in range(requests)]
    until(lambda: sum(note.startswith("generate") for note in server.engine_notes) == before + requests)
    return futures


def test_the_port_is_open_and_says_503_with_a_phase_until_the_engine_is_ready(start, until, infer_body):
    server = start(engine=GATED, wait=False)
    until(server.has_port)
    until(lambda: httpx.get(f"{server.url}/v2/models/sd/ready").json()["phase"] == "imports")
    for path in ("health/ready", "models/sd/ready"):
        reply = httpx.get(f"{server.url}/v2/{path}")
        assert (reply.status_code, reply.json()["code"], reply.json()["ready"]) == (503, "not_ready", False)
        assert int(reply.headers["retry-after"]) >= 1
    refused = httpx.post(server.infer, json=infer_body())
    assert (refused.status_code, refused.json()["code"], refused.json()["phase"]) == (503, "not_ready", "imports")
    for path in ("models/sd", "models/sd/capabilities"):
        assert httpx.get(f"{server.url}/v2/{path}").status_code == 503
    assert httpx.get(f"{server.url}/v1/models/sd").status_code == 503
    assert server.metric("sdzero_ready") == 0
    with triton_grpc.InferenceServerClient(server.grpc) as client:
        assert not client.is_server_ready()
        assert not client.is_model_ready("sd")
        with pytest.raises(triton_grpc.InferenceServerException, match="not_ready") as caught:
            client.get_model_metadata("sd")
        assert caught.value.status() == "StatusCode.UNAVAILABLE"
    server.gate.touch()
    until(server.is_ready)
    assert httpx.get(f"{server.url}/v2/health/ready").status_code == 200
    assert server.metric("sdzero_ready") == 1


def test_a_killed_engine_answers_everyone_at_once_and_comes_back(start, until, threads, infer_body):
    server = start(engine=GATED, wait=False)
    server.gate.touch()
    until(server.is_ready)
    futures = hold(server, threads, 8, until, infer_body("hold"))
    server.gate.unlink()
    killed = time.monotonic()
    os.kill(server.engine_pid(), signal.SIGKILL)
    replies = [future.result(timeout=20) for future in futures]
    assert time.monotonic() - killed < 2
    for reply in replies:
        assert (reply.status_code, reply.json()["code"]) == (503, "engine_lost")
        assert reply.headers["x-should-retry"] == "true"
        assert int(reply.headers["retry-after"]) >= 1
    assert not server.is_ready()
    server.gate.touch()
    until(server.is_ready)
    again = httpx.post(server.infer, json=infer_body())
    assert (again.status_code, again.json()["parameters"]["cold_start"]) == (200, True)
    assert server.metric("sdzero_engine_restarts_total") == 1
    assert server.metric('sdzero_requests_total{outcome="engine_lost"}') == 8
    assert server.metric("sdzero_images_in_flight") == 0


def test_an_engine_that_dies_in_the_middle_of_a_stream_ends_it_with_an_error_event(sturdy, until):
    route = f"{sturdy.url}/v2/models/sd/generate_stream"
    with httpx.stream("POST", route, json={"prompt": "hold"}, timeout=20) as reply:
        lines = reply.iter_lines()
        while next(lines) != "event: progress":
            pass
        os.kill(sturdy.engine_pid(), signal.SIGKILL)
        rest = list(lines)
    assert rest[-3] == "event: error"
    assert json.loads(rest[-2].removeprefix("data: "))["code"] == "engine_lost"
    until(sturdy.is_ready)


@pytest.mark.parametrize("prompt", ["die", "nonsense"])
def test_a_request_that_kills_the_engine_is_answered_and_the_next_one_served(sturdy, until, infer_body, prompt):
    reply = httpx.post(sturdy.infer, json=infer_body(prompt), timeout=20)
    assert (reply.status_code, reply.json()["code"]) == (503, "engine_lost")
    until(sturdy.is_ready)
    assert httpx.post(sturdy.infer, json=infer_body(), timeout=20).status_code == 200


def test_an_engine_that_cannot_start_ends_the_server_with_its_words(start):
    words = "unet/diffusion_pytorch_model.safetensors: truncated: got 10 bytes, expected 3000000"
    server = start(engine={"FAKE_FAIL": words}, wait=False)
    assert server.popen.wait(20) == 1
    assert f"sdzero: {words}" in server.stderr
    assert "Traceback" not in server.stderr
    assert server.engine_notes == ["start"]


def test_an_engine_that_keeps_dying_ends_the_server(start):
    server = start(engine={"FAKE_EXIT": "7"}, wait=False, engine_restarts=2)
    assert server.popen.wait(30) == 1
    assert server.engine_notes == ["start"] * 3
    assert "3 times in a row before it was ready, last with exit code 7" in server.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_refuses_new_work_finishes_what_runs_and_exits_0(start, until, threads, infer_body, number):
    server = start(engine={"TMPDIR": "{folder}", "FAKE_RELEASE": "{folder}/release"})
    engine = server.engine_pid()
    (folder,) = server.folder.glob("sdzero-*")
    assert folder.stat().st_mode & 0o777 == 0o700
    # A Ctrl-C in a terminal goes to the whole group of the server.
    assert os.getpgid(engine) != os.getpgid(server.popen.pid)
    with httpx.Client(timeout=20) as kept, triton_grpc.InferenceServerClient(server.grpc) as grpc_client:
        assert kept.get(f"{server.url}/v2/health/ready").status_code == 200
        assert grpc_client.is_server_ready()
        (running,) = hold(server, threads, 1, until, infer_body("hold", num_images=8))
        server.popen.send_signal(number)
        until(lambda: kept.get(f"{server.url}/v2/health/ready").status_code == 503)
        refused = kept.post(server.infer, json=infer_body())
        assert (refused.status_code, refused.json()["code"]) == (503, "draining")
        assert refused.headers["connection"] == "close"
        assert httpx.post(server.infer, json=infer_body()).json()["code"] == "draining"
        assert not grpc_client.is_server_ready()
        prompt = triton_grpc.InferInput("prompt", [1], "BYTES")
        prompt.set_data_from_numpy(np.array([b"x"], object))
        with pytest.raises(triton_grpc.InferenceServerException, match="draining") as caught:
            grpc_client.infer("sd", [prompt])
        assert caught.value.status() == "StatusCode.UNAVAILABLE"
        (server.folder / "release").touch()
        assert running.result(timeout=20).status_code == 200
    assert server.popen.wait(10) == 0
    assert "Traceback" not in server.stderr
    assert not Path(f"/proc/{engine}").exists()
    assert not folder.exists()


def test_what_does_not_finish_in_the_grace_period_is_told_to_go_elsewhere(start, until, threads, infer_body):
    server = start(grace_seconds=2)
    (running,) = hold(server, threads, 1, until, infer_body("hold"))
    server.popen.terminate()
    reply = running.result(timeout=20)
    assert (reply.status_code, reply.json()["code"]) == (503, "draining")
    assert server.popen.wait(2) == 0


def test_a_second_signal_does_not_wait(start, until, threads, infer_body):
    server = start(grace_seconds=600)
    (running,) = hold(server, threads, 1, until, infer_body("hold"))
    server.popen.terminate()
    until(lambda: not server.is_ready())
    server.popen.terminate()
    assert running.result(timeout=20).json()["code"] == "draining"
    assert server.popen.wait(20) == 0


def test_a_signal_while_the_engine_loads_exits_0(start, until):
    server = start(engine=GATED, wait=False)
    until(server.has_port)
    server.popen.terminate()
    assert server.popen.wait(10) == 0


def test_a_signal_at_any_early_moment_is_not_lost(start, until):
    server = start(wait=False, engine=GATED)
    until(lambda: bool(server.engine_notes))  # the engine runs, the server still imports
    server.popen.terminate()
    assert server.popen.wait(10) == 0


def test_the_engine_does_not_outlive_a_server_that_is_killed(start, until):
    server = start()
    engine = Path(f"/proc/{server.engine_pid()}")
    server.popen.kill()
    server.popen.wait(10)
    until(lambda: not engine.exists())


def test_a_port_in_use_ends_the_server(start):
    with socket.create_server(("0.0.0.0", 0)) as taken:
        server = start(wait=False, http_port=taken.getsockname()[1])
        assert server.popen.wait(20) != 0
    assert "address already in use" in server.stderr + json.dumps(server.log)


@pytest.mark.parametrize("route", ["infer", "generate_stream"])
def test_a_client_that_hangs_up_frees_its_rows(sturdy, until, infer_body, route):
    cancelled = 'sdzero_requests_total{outcome="cancelled"}'
    before, noted = sturdy.metric(cancelled), len(sturdy.engine_notes)
    body = json.dumps(infer_body("hold") if route == "infer" else {"prompt": "hold"}).encode()
    head = f"POST /v2/models/sd/{route} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", sturdy.http_port), 10) as client:
        client.sendall(head.encode() + body)
        until(lambda: len(sturdy.engine_notes) > noted)
        received = b""
        while route == "generate_stream" and b"event: accepted" not in received:
            received += client.recv(4096)
        assert sturdy.metric("sdzero_images_in_flight") == 1
    id = sturdy.engine_notes[noted].removeprefix("generate ")
    until(lambda: f"cancel {id}" in sturdy.engine_notes)
    until(lambda: sturdy.metric(cancelled) == before + 1)
    assert sturdy.metric("sdzero_images_in_flight") == 0
    assert httpx.post(sturdy.infer, json=infer_body(), timeout=20).status_code == 200


def test_a_full_queue_answers_at_once_and_says_when_to_come_back(sturdy, until, threads, infer_body):
    assert httpx.post(sturdy.infer, json=infer_body(), timeout=20).status_code == 200
    held = hold(sturdy, threads, 2, until, infer_body("hold", num_images=2))
    reply = httpx.post(sturdy.infer, json=infer_body(num_images=8), timeout=20)
    assert (reply.status_code, reply.json()["code"]) == (429, "queue_full")
    # Eight images too many, at the half second of device time that each one takes.
    assert reply.headers["retry-after"] == "4"
    assert "4 images wait or run and 8 more" in reply.json()["error"]
    os.kill(sturdy.engine_pid(), signal.SIGKILL)
    assert {future.result(timeout=20).status_code for future in held} == {503}
    until(sturdy.is_ready)


def test_an_engine_that_hangs_does_not_hang_its_clients(start, infer_body, until):
    server = start(timeout_seconds=0.5)
    reply = httpx.post(server.infer, json=infer_body("hold"), timeout=20)
    assert (reply.status_code, reply.json()["code"]) == (504, "deadline_exceeded")
    assert reply.headers["x-should-retry"] == "false"
    until(lambda: "cancel 1" in server.engine_notes)


def test_the_log_is_json_and_holds_no_prompt_unless_switched_on(sturdy, start, http, infer_body):
    secret = "a very private sentence"
    contradiction = infer_body(secret)
    contradiction["parameters"]["prompt"] = f"{secret} of another kind"
    for server, switched_on in ((sturdy, False), (start(log_prompts=True), True)):
        headers = {"x-request-id": "trace-7"}
        http.post(server.infer, json=infer_body(secret), headers=headers)
        assert http.post(server.infer, json=contradiction, headers=headers).status_code == 400
        http.post(f"{server.url}/v2/models/sd/generate", json={"prompt": secret}, headers=headers)
        lines = [line for line in server.log if line.get("request_id") == "trace-7"]
        assert [line["event"] for line in lines] == ["request"] * 3
        assert [line["outcome"] for line in lines] == ["ok", "invalid_field", "ok"]
        assert lines[0]["seconds"] > 0
        assert lines[1]["field"] == "prompt"
        assert (secret in json.dumps(server.log) + server.stderr) is switched_on


def test_metrics_count_outcomes_and_start_at_zero(start, http, infer_body):
    server = start()
    for outcome in ("ok", "internal", "queue_full", "invalid_field"):
        assert server.metric(f'sdzero_requests_total{{outcome="{outcome}"}}') == 0
    http.post(server.infer, json=infer_body(num_images=3, steps=5))
    http.post(server.infer, json=infer_body(steps=0))
    assert server.metric('sdzero_requests_total{outcome="ok"}') == 1
    assert server.metric('sdzero_requests_total{outcome="invalid_field"}') == 1
    assert server.metric('sdzero_request_seconds_count{model="sd",outcome="ok"}') == 1
    assert server.metric('sdzero_request_seconds_bucket{le="600.0",model="sd",outcome="ok"}') == 1
    assert server.metric("sdzero_images_total") == 3
    assert server.metric("sdzero_gpu_seconds_total") == 0.5
    assert server.metric("sdzero_queue_seconds_count") == 1
    assert server.metric('sdzero_step_seconds_count{stage="step"}') == 5
    assert server.metric('sdzero_batch_rows_bucket{le="2.0"}') == 0
    assert server.metric('sdzero_batch_rows_bucket{le="3.0"}') == 5
    assert server.metric('sdzero_cold_start_seconds_count{phase="weights_read",process="engine"}') == 1
    assert server.metric('sdzero_cold_start_seconds_count{phase="first_image",process="server"}') == 1
