"""The real server, the real engine and the demo model, each as its own process, seen from outside."""

import concurrent.futures
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest

from predictor.lab.shapes.checker import check

with warnings.catch_warnings():
    # Old idioms of the client's own imports.
    warnings.simplefilter("ignore")
    import tritonclient.grpc as triton_grpc

PROMPT = "a red circle on a blue background"
OURS = {"seed": 7, "steps": 8, "sampler": "euler"}
STRANGERS = [
    ("a large yellow star on a black background", {"seed": 1, "steps": 9, "sampler": "ddim"}),
    ("green triangle, white backdrop", {"seed": 2, "steps": 6, "sampler": "dpmpp_2m_karras", "guidance_scale": 3.0}),
    ("a purple heart", {"seed": 3, "steps": 12, "sampler": "euler_a", "negative_prompt": "black"}),
    ("an orange cross on a grey background", {"seed": 4, "steps": 7, "sampler": "lcm", "guidance_scale": 1.0}),
    ("a pink ring", {"seed": 5, "steps": 5, "sampler": "dpmpp_2m", "height": 64, "width": 96}),
    ("a white square on a green background", {"seed": 6, "steps": 10, "num_images": 2}),
]
LONG = {"steps": 150}  # a request that does not end by itself while a test looks at it


@pytest.fixture
def threads() -> Iterator[concurrent.futures.ThreadPoolExecutor]:
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        yield pool


def apart(one: np.ndarray, other: np.ndarray) -> int:
    """The largest difference of two pictures, of 255."""
    return int(np.abs(one.astype(int) - other.astype(int)).max())


def distance(one: np.ndarray, other: np.ndarray) -> float:
    """The mean difference of two pictures or colours, of 255."""
    return float(np.abs(one - other).mean())


def events(reply: httpx.Response) -> Iterator[tuple[str, dict]]:
    """Server-sent events as they come."""
    name = ""
    for line in reply.iter_lines():
        field, _, value = line.partition(": ")
        if field == "event":
            name = value
        elif field == "data":
            yield name, json.loads(value)


def stream(predictor, **fields):
    return httpx.stream("POST", f"{predictor.model_url}/generate_stream", json=fields, timeout=60)


@pytest.mark.parametrize(
    ("shape", "colour", "background"),
    [("circle", "red", "blue"), ("star", "yellow", "black"), ("square", "green", "white")],
)
def test_a_picture_shows_what_its_prompt_says(predictor, shape, colour, background):
    prompt = f"a {colour} {shape} on a {background} background"
    found = check(predictor.picture(prompt, seed=7, steps=20))
    assert (found.shape, found.colour, found.background) == (shape, colour, background)


def test_pixels_depend_on_the_request_alone(predictor, threads):
    alone = predictor.picture(PROMPT, **OURS)
    assert np.array_equal(alone, predictor.picture(PROMPT, **OURS))
    assert apart(alone, predictor.picture(PROMPT, **OURS | {"seed": 8})) > 2

    before = predictor.shared_steps()
    strangers = [(prompt, fields) for prompt, fields in STRANGERS if predictor.any_size or "height" not in fields]
    others = [threads.submit(predictor.pictures, prompt, **fields) for prompt, fields in strangers]
    ours = [threads.submit(predictor.picture, PROMPT, **OURS) for _ in range(2)]
    for future in ours:
        assert apart(alone, future.result()) <= 2
    sizes = [picture.shape[:2] for future in others for picture in future.result()]
    assert sizes == [(128, 128)] * 4 + [(64, 96)] * predictor.any_size + [(128, 128)] * 2
    assert predictor.shared_steps() > before


def test_a_bundle_runs_without_torchs_python(predictor):
    predictor.picture(PROMPT, **OURS)
    libraries = Path(f"/proc/{predictor.engine_pid()}/maps").read_text()
    assert "libtorch_cpu.so" in libraries
    assert ("libtorch_python.so" in libraries) == predictor.any_size


def test_a_size_that_was_not_compiled_is_refused_with_those_that_were(predictor):
    reply = predictor.infer(PROMPT, height=64, width=96)
    assert (reply.status_code == 200) == predictor.any_size
    if not predictor.any_size:
        assert "height and width: got 64 x 96; allowed: 128 x 128" in reply.json()["error"]


def test_a_newcomer_joins_what_runs_and_changes_neither_picture(predictor, decoded):
    stranger = {"prompt": "a yellow star", "seed": 1, "steps": 60, "sampler": "euler_a"}
    undisturbed = predictor.picture(**stranger)
    alone = predictor.picture(PROMPT, **OURS)
    before = predictor.shared_steps()
    with stream(predictor, **stranger) as reply:
        updates = events(reply)
        while next(updates)[0] != "progress":
            pass
        joined = predictor.picture(PROMPT, **OURS)
        *_, (last, answer) = updates
    assert last == "done"
    # Every step of the newcomer was one that the stranger had to make anyway.
    assert predictor.shared_steps() - before == OURS["steps"]
    assert apart(alone, joined) <= 2
    assert apart(undisturbed, decoded(answer["image"][0])) <= 2


def test_raw_pixels_over_grpc_are_those_of_the_png_over_rest(predictor):
    prompt = triton_grpc.InferInput("prompt", [1], "BYTES")
    prompt.set_data_from_numpy(np.array([PROMPT.encode()], object))
    wanted = [triton_grpc.InferRequestedOutput("generated_image")]
    with triton_grpc.InferenceServerClient(f"127.0.0.1:{predictor.grpc_port}") as client:
        raw = client.infer("shapes", [prompt], outputs=wanted, parameters=OURS).as_numpy("generated_image")
    assert (raw.dtype, raw.shape) == (np.uint8, (1, 128, 128, 3))
    assert np.array_equal(raw[0], predictor.picture(PROMPT, **OURS))


@pytest.mark.parametrize("change", [{"negative_prompt": "a circle"}, {"guidance_scale": 1.0}])
def test_guidance_and_the_negative_prompt_matter(predictor, change):
    assert apart(predictor.picture(PROMPT, **OURS), predictor.picture(PROMPT, **OURS, **change)) > 50


def test_image_i_of_a_request_is_the_image_of_seed_plus_i(predictor):
    together = predictor.pictures(PROMPT, **OURS, num_images=3)
    alone = [predictor.picture(PROMPT, **OURS | {"seed": seed}) for seed in (7, 8, 9)]
    assert [apart(one, other) <= 2 for one, other in zip(together, alone, strict=True)] == [True] * 3
    assert apart(together[0], together[1]) > 2


def test_a_stream_counts_every_step_and_its_previews_become_the_picture(predictor, decoded):
    with stream(predictor, prompt=PROMPT, seed=7, steps=20, previews=True) as reply:
        assert reply.headers["content-type"].startswith("text/event-stream")
        (first, accepted), *progress, (last, answer) = events(reply)
    assert (first, last) == ("accepted", "done")
    assert accepted["prompt_tokens"] == 7
    assert [(name, update["step"], update["steps"]) for name, update in progress] == [
        ("progress", step, 20) for step in range(1, 21)
    ]
    previews = [decoded(update["previews"][0]).astype(float) for _, update in progress]
    assert {preview.shape for preview in previews} == {(16, 16, 3)}
    # One linear map cannot tell this model's colours; it can tell that they are nearer at the end, and settled.
    picture = decoded(answer["image"][0]).mean((0, 1))
    assert distance(previews[-1].mean((0, 1)), picture) < distance(previews[0].mean((0, 1)), picture)
    assert distance(previews[-1], previews[-2]) < 5 < distance(previews[-1], previews[0])


def test_a_prompt_with_too_many_tokens_is_refused_unless_it_may_be_cut(predictor):
    long = "red " * 85
    refused = predictor.infer(long, **OURS)
    assert (refused.status_code, refused.json()["code"], refused.json()["field"]) == (400, "invalid_field", "prompt")
    assert refused.json()["error"] == "prompt: got 85 tokens; allowed: at most 75, or set truncate_prompt"
    cut = predictor.picture(long, **OURS, truncate_prompt=True)
    assert np.array_equal(cut, predictor.picture("red " * 75, **OURS))


def test_a_client_that_hangs_up_frees_its_rows(predictor, eventually):
    steps, cancelled = 'sdzero_step_seconds_count{stage="step"}', 'sdzero_requests_total{outcome="cancelled"}'
    before, cancelled_before = predictor.metric(steps), predictor.metric(cancelled)
    body = json.dumps({"prompt": PROMPT, **LONG, "num_images": 8}).encode()
    head = f"POST /v2/models/shapes/generate HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", predictor.http_port), 10) as client:
        client.sendall(head.encode() + body)
        eventually(lambda: predictor.metric(steps) > before)
        assert predictor.metric("sdzero_images_in_flight") == 8
    eventually(lambda: predictor.metric(cancelled) == cancelled_before + 1)
    assert predictor.metric("sdzero_images_in_flight") == 0
    shared = predictor.shared_steps()
    predictor.picture(PROMPT, **OURS)
    # The step that ran when the client left may have been counted late.
    assert predictor.shared_steps() <= shared + 1
    assert predictor.metric(steps) - before < LONG["steps"]


def test_a_killed_engine_answers_everyone_within_two_seconds_and_comes_back_the_same(predictor, threads, eventually):
    picture = predictor.picture(PROMPT, **OURS)
    restarts = predictor.metric("sdzero_engine_restarts_total")

    def ask(seed: int) -> tuple[httpx.Response, float]:
        return predictor.infer(PROMPT, seed=seed, **LONG), time.monotonic()

    running = [threads.submit(ask, seed) for seed in range(8)]
    eventually(lambda: predictor.metric("sdzero_images_in_flight") == 8)
    engine, killed = predictor.engine_pid(), time.monotonic()
    os.kill(engine, signal.SIGKILL)
    for future in running:
        reply, answered = future.result()
        assert answered - killed < 2
        assert (reply.status_code, reply.json()["code"]) == (503, "engine_lost")
        assert int(reply.headers["retry-after"]) >= 1
    assert not predictor.is_ready()
    assert predictor.infer(PROMPT, **OURS).json()["code"] == "not_ready"
    predictor.wait_until_ready()
    assert predictor.engine_pid() != engine
    assert predictor.metric("sdzero_engine_restarts_total") == restarts + 1
    assert apart(predictor.picture(PROMPT, **OURS), picture) <= 2


def test_a_request_whose_time_runs_out_leaves(start_predictor, eventually):
    hasty = start_predictor(timeout_seconds=0.2)
    reply = hasty.infer(PROMPT, **LONG)
    assert (reply.status_code, reply.json()["code"]) == (504, "deadline_exceeded")
    # The engine's own answer, between two steps; the server's stand-in would say that the engine hangs.
    assert "before its images were done" in reply.json()["error"]
    assert hasty.metric("sdzero_images_in_flight") == 0


def test_sigterm_lets_a_request_finish_and_exits_0(start_predictor, threads, eventually):
    leaving = start_predictor()
    running = threads.submit(leaving.infer, PROMPT, seed=7, steps=80)
    eventually(lambda: leaving.metric('sdzero_step_seconds_count{stage="step"}') > 0)
    leaving.popen.send_signal(signal.SIGTERM)
    eventually(lambda: "draining" in leaving.output.read_text())
    assert not running.done()
    assert running.result().status_code == 200
    assert leaving.popen.wait(30) == 0
    assert "Traceback" not in leaving.output.read_text()


@pytest.mark.parametrize(
    ("file", "length", "why"),
    [
        ("unet/diffusion_pytorch_model.safetensors", 100_000, "cut short"),
        ("text_encoder/model.safetensors", 0, "cut short"),
        ("vae/diffusion_pytorch_model.safetensors", None, "no weights; expected diffusion_pytorch_model.safetensors"),
    ],
    ids=["truncated", "empty", "missing"],
)
def test_a_damaged_weight_file_ends_the_process_with_its_name(start_predictor, demo_model, tmp_path, file, length, why):
    broken = tmp_path / "broken"
    shutil.copytree(demo_model, broken)
    if length is None:
        (broken / file).unlink()
        named = broken / Path(file).parent
    else:
        os.truncate(broken / file, length)
        named = broken / file
    ended = start_predictor(broken, ready=False)
    assert ended.popen.wait(60) == 1
    last = ended.output.read_text().splitlines()[-1]
    assert last.startswith(f"sdzero: {named}: ")
    assert why in last
    assert "Traceback" not in ended.output.read_text()


def test_metrics_of_a_burst_and_of_the_start(predictor, threads):
    rows, images = predictor.metric("sdzero_batch_rows_sum"), predictor.metric("sdzero_images_total")
    steps = predictor.metric('sdzero_step_seconds_count{stage="step"}')
    seconds = predictor.metric("sdzero_gpu_seconds_total")
    shared = predictor.shared_steps()
    start = threading.Barrier(4)

    def ask(seed: int) -> None:
        start.wait()
        predictor.picture(PROMPT, seed=seed, steps=10)

    for future in [threads.submit(ask, seed) for seed in range(4)]:
        future.result()
    assert predictor.metric("sdzero_batch_rows_sum") - rows == 40
    assert 10 <= predictor.metric('sdzero_step_seconds_count{stage="step"}') - steps < 40
    assert predictor.shared_steps() > shared
    assert predictor.metric("sdzero_gpu_seconds_total") > seconds
    assert predictor.metric("sdzero_images_total") - images == 4
    eager = ("torch", "modules_built", "weights_on_device", "warm")
    baked = ("bundle_opened", "libtorch", "files_checked", "tokenizers", "text_warm", "step_warm", "decode_warm")
    for process, phases in {
        "server": ("interpreter", "imports", "assembled", "listening", "engine_ready", "first_request", "first_image"),
        "engine": ("interpreter", "weights_read", *(eager if predictor.any_size else baked), "ready"),
    }.items():
        for phase in phases:
            sample = f'sdzero_cold_start_seconds_count{{phase="{phase}",process="{process}"}}'
            assert predictor.metric(sample) >= 1


def test_the_timeline_command_draws_the_start_and_prints_it_for_machines(predictor, sdzero):
    predictor.picture(PROMPT, **OURS)
    run = sdzero("timeline", predictor.url, "--json")
    assert (run.returncode, run.stderr) == (0, "")
    timeline = json.loads(run.stdout)
    names = {(phase["process"], phase["name"]) for phase in timeline["phases"]}
    assert {("engine", "weights_read"), ("engine", "ready"), ("server", "imports"), ("server", "first_image")} <= names
    assert timeline["ready"] is True
    assert all(phase["seconds"] >= 0 for phase in timeline["phases"])
    run = sdzero("timeline", predictor.url)
    assert (run.returncode, run.stderr) == (0, "")
    head, *lines = run.stdout.splitlines()
    assert head.split()[:2] == ["0", "s"]
    assert [tuple(line.split()[:2]) for line in lines] == [
        (phase["process"], phase["name"]) for phase in timeline["phases"]
    ]
    assert all("█" in line for line in lines)


def test_the_timeline_command_says_why_it_has_nothing_to_show(sdzero):
    run = sdzero("timeline", "http://127.0.0.1:1")
    assert (run.returncode, run.stdout) == (1, "")
    assert "http://127.0.0.1:1" in run.stderr
    assert "refused" in run.stderr


def test_the_engine_imports_nothing_that_only_costs_time(demo_model):
    program = (
        "import sys\n"
        "import predictor.engine.loop\n"
        "from predictor.engine.load import load\n"
        "from predictor.settings import EngineSettings\n"
        "load(EngineSettings(model=sys.argv[1], device='cpu'), lambda *_: None)\n"
        "print(*sys.modules)\n"
    )
    run = subprocess.run([sys.executable, "-c", program, demo_model], capture_output=True, text=True, check=True)
    loaded = set(run.stdout.split())
    assert {"torch", "diffusers"} <= loaded
    needless = {"transformers", "torch._dynamo", "torch._inductor", "kserve", "pandas", "fastapi"}
    assert loaded & needless == set()
