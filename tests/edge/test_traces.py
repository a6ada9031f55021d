"""One trace through a real edge and a real predictor with the demo model, as a real collector receives it."""

import concurrent.futures
import socket
import warnings
from dataclasses import dataclass
from typing import Any

import httpx
import numpy as np
import pytest

from tests.asgi.collector import Collector, Span, collector
from tests.edge.http_servers import Answer, web
from tests.processes import free_port, wait_until

with warnings.catch_warnings():
    # Old idioms of the client's own imports.
    warnings.simplefilter("ignore")
    import tritonclient.grpc as triton_grpc

PROMPT, AVOIDED = "a crimson circle nobody may read", "an azure square nobody may read"
BODY = {
    "model": "shapes",
    "prompt": PROMPT,
    "negative_prompt": AVOIDED,
    "seed": 7,
    "num_inference_steps": 5,
    "user": "user-1",
}
POST = "POST /v1/images/generations"
CALL = "generate_content shapes"
STREAM = "POST /v2/models/{model}/generate_stream"
GRPC = "inference.GRPCInferenceService/ModelInfer"
STAGES = ["queue", "encode", "denoise", "decode", "pack"]
COLD, WARM, JOB, REPLAY, NATIVE, REFUSED = (f"{number}" * 32 for number in range(1, 7))
CALLER = "b7ad6b7169203331"
NOBODY = {"authorization": "Bearer sk-nobody"}
HOUR = 3_600_000  # ms between two exports: what arrives is what the end of the process sends


@dataclass(frozen=True)
class Story:
    collector: Collector
    timeline: dict[str, Any]
    key: str
    edge_log: str

    def trace(self, id: str) -> list[Span]:
        return [span for span in self.collector.spans if span.trace == id]

    def step(self, trace: str, name: str) -> Span:
        (span,) = [span for span in self.trace(trace) if span.name == name]
        return span

    def children(self, of: Span) -> list[Span]:
        return [span for span in self.collector.spans if span.parent == of.id]


@pytest.fixture(scope="module")
def story(start_edge, start_predictor) -> Story:
    """A request that wakes the predictor, one that finds it awake, a job, some that fail, one that comes by gRPC."""
    port, grpc_port = free_port(), free_port()
    with collector() as collected, pytest.MonkeyPatch.context() as environ:
        environ.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collected.url)
        environ.setenv("OTEL_BSP_SCHEDULE_DELAY", str(HOUR))
        edge = start_edge(f"http://127.0.0.1:{port}")
        key = edge.key("--name", "tests")
        with concurrent.futures.ThreadPoolExecutor(1) as thread, edge.client(key) as client:

            def draw(trace: str, path: str = "/v1/images/generations", **more: object) -> httpx.Response:
                headers = {"traceparent": f"00-{trace}-{CALLER}-01"}
                return client.post(path, json=BODY | more, headers=headers)

            waits = thread.submit(draw, COLD)
            wait_until(lambda: edge.metric("sdzero_edge_predictor_requests") > 0)
            predictor = start_predictor(http_port=port, grpc_port=grpc_port)
            assert waits.result().status_code == 200
            timeline = httpx.get(f"{predictor.url}/timeline").json()
            assert draw(WARM, seed=8).status_code == 200
            assert draw(REFUSED, num_inference_steps=-1).status_code == 400
            assert client.post("/v1/images/generations", content=b"{", headers={"traceparent": "x"}).status_code == 400
            assert httpx.post(f"{edge.url}/v1/images/generations", json=BODY, headers=NOBODY).status_code == 401
            job = draw(JOB, "/v1/jobs", seed=9)
            assert job.status_code == 202
            wait_until(lambda: client.get(f"/v1/jobs/{job.json()['id']}").json()["state"] == "done")
            path, headers = f"/v1/jobs/{job.json()['id']}/replay", {"traceparent": f"00-{REPLAY}-{CALLER}-01"}
            again = client.post(path, headers=headers).json()["id"]
            wait_until(lambda: client.get(f"/v1/jobs/{again}").json()["state"] == "done")
        _ask_by_grpc(grpc_port)
        assert edge.stop() == 0
        predictor.popen.terminate()
        assert predictor.popen.wait(60) == 0
    return Story(collected, timeline, key, edge.log)


def _ask_by_grpc(port: int) -> None:
    prompt = triton_grpc.InferInput("prompt", [1], "BYTES")
    prompt.set_data_from_numpy(np.array([PROMPT.encode()], object))
    with triton_grpc.InferenceServerClient(f"127.0.0.1:{port}") as client:
        client.infer("shapes", [prompt], headers={"traceparent": f"00-{NATIVE}-{CALLER}-01"}, parameters={"steps": 3})


def test_a_request_is_one_trace_from_the_client_to_the_engine(story):
    edge = story.step(WARM, POST)
    assert (edge.parent, edge.service, edge.attributes["http.response.status_code"]) == (CALLER, "sdzero-edge", 200)
    assert [span.name for span in story.children(edge)] == ["admission", "generation"]
    generation = story.step(WARM, "generation")
    assert generation.attributes["sdzero.generation"] == edge.attributes["sdzero.generation"]
    assert [span.name for span in story.children(generation)] == [CALL, "store"]
    (predictor,) = story.children(story.step(WARM, CALL))
    assert (predictor.name, predictor.service) == (STREAM, "sdzero-predictor")
    assert predictor.attributes["gen_ai.request.model"] == "shapes"
    assert predictor.attributes["gen_ai.request.seed"] == 8
    assert predictor.attributes["faas.coldstart"] is False
    assert predictor.attributes["sdzero.gpu_seconds"] > 0
    assert [span.name for span in story.children(predictor)] == STAGES


def test_every_step_lies_within_what_it_is_part_of(story):
    spans = {span.id: span for trace in (COLD, WARM, NATIVE) for span in story.trace(trace)}
    inner = [span for span in spans.values() if span.parent != CALLER]
    assert len(inner) > 20
    assert [(span.name, spans[span.parent].name) for span in inner if not spans[span.parent].holds(span)] == []


def test_the_start_that_a_request_waited_for_is_in_its_trace(story):
    call = story.step(COLD, CALL)
    assert [span.name for span in story.children(call)] == ["wake", "cold_start", STREAM]
    wake, start, predictor = story.children(call)
    assert wake.service == "sdzero-edge"
    assert start.service == "sdzero-predictor"
    assert predictor.attributes["faas.coldstart"] is True
    # The process began after somebody wanted it, and took the request before it was out of patience.
    assert wake.began <= start.began < start.ended <= wake.ended
    of_request = {"first_request", "first_image"}
    phases = {f"{p['process']} {p['name']}": p for p in story.timeline["phases"] if p["name"] not in of_request}
    told = {span.name: span for span in story.children(start)}
    assert told.keys() == phases.keys() >= {"server imports", "server engine_ready", "engine interpreter"}
    for name, phase in phases.items():
        assert told[name].began - start.began == pytest.approx(phase["start"], abs=1e-3)
        assert told[name].ended - told[name].began == pytest.approx(phase["seconds"], abs=1e-3)


def test_a_start_is_told_once(story):
    assert [span.trace for span in story.collector.spans if span.name == "cold_start"] == [COLD]
    assert [span.trace for span in story.collector.spans if span.name == "wake"] == [COLD]


def test_asking_until_it_was_ready_left_one_span_of_the_predictor(story):
    assert [span.name for span in story.trace(COLD) if span.service == "sdzero-predictor"].count(STREAM) == 1


def test_a_job_goes_on_in_its_trace_after_its_answer(story):
    assert story.step(JOB, "POST /v1/jobs").attributes["http.response.status_code"] == 202
    assert story.step(JOB, "generation").parent == story.step(JOB, "POST /v1/jobs").id
    assert [span.name for span in story.children(story.step(JOB, STREAM))] == STAGES


def test_a_replay_is_a_trace_of_its_own(story):
    assert story.step(REPLAY, "generation").parent == story.step(REPLAY, "POST /v1/jobs/{id}/replay").id
    assert [span.name for span in story.children(story.step(REPLAY, STREAM))] == STAGES


def test_a_refusal_says_by_its_code_why_and_goes_no_further(story):
    refused = story.trace(REFUSED)
    assert {span.name for span in refused} == {POST, "admission"}
    assert {span.attributes["error.type"] for span in refused} == {"invalid_field"}
    codes = [span.attributes.get("error.type") for span in story.collector.spans if span.name == POST]
    assert "unauthenticated" in codes
    nonsense = story.collector.one("POST /v1/images/generations", request_id=_logged(story, "invalid_request"))
    assert nonsense.parent == ""


def _logged(story: Story, outcome: str) -> str:
    """The request id of the log's line with that outcome."""
    (line,) = [line for line in story.edge_log.splitlines() if f'"outcome": "{outcome}"' in line]
    assert '"trace_id": "' in line
    return line.split('"request_id": "')[1].split('"')[0]


def test_grpc_brings_its_trace_as_metadata(story):
    span = story.step(NATIVE, GRPC)
    assert (span.parent, span.attributes["rpc.response.status_code"]) == (CALLER, "OK")
    assert [child.name for child in story.children(span)] == STAGES


def test_neither_prompts_nor_keys_nor_users_leave_with_the_traces(story):
    assert story.collector.spans
    for secret in (PROMPT, AVOIDED, "nobody may read", "sk-nobody", story.key, "user-1"):
        assert secret.encode() not in story.collector.bytes


def test_a_collector_that_is_away_or_says_nothing_hurts_no_request(start_edge, start_predictor):
    predictor = start_predictor()
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.MonkeyPatch.context() as environ:
        environ.setenv("OTEL_BSP_SCHEDULE_DELAY", "1")
        environ.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "600")
        for port in (silent.getsockname()[1], free_port()):
            environ.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{port}")
            edge = start_edge(predictor.url)
            with edge.client(edge.key("--name", "tests")) as client:
                for seed in range(3):
                    assert client.post("/v1/images/generations", json=BODY | {"seed": seed}).status_code == 200
            assert edge.stop() == 0


def test_without_a_collector_no_trace_is_made_and_none_passed_on(start_edge):
    refusal = Answer(400, b'{"error": "no", "code": "invalid_request"}')
    with web(lambda _: refusal) as predictor:
        edge = start_edge(predictor.url)
        with edge.client(edge.key("--name", "tests")) as client:
            headers = {"traceparent": f"00-{WARM}-{CALLER}-01"}
            assert client.post("/v1/images/generations", json=BODY, headers=headers).status_code == 400
        assert edge.stop() == 0
    (came,) = predictor.came
    assert "traceparent" not in came.headers
    assert '"outcome": "invalid_request"' in edge.log
    assert "trace_id" not in edge.log
