"""Traces as a collector sees them, and what they cost where nobody wants them."""

import asyncio
import contextlib
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from predictor.asgi import tracing
from predictor.asgi.journal import Entry
from predictor.asgi.tracing import NOTHING, Tracer
from predictor.core.problems import EngineLost, InternalError, InvalidField, NotReady
from predictor.core.request import GenerationRequest
from predictor.core.timeline import Phase
from tests.asgi.collector import Collector, collector

ROOT = Path(__file__).parents[2]
SERVER, CLIENT = 2, 3  # span.kind in OTLP
TRACE, CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACEPARENT = {"traceparent": f"00-{TRACE}-{CALLER}-01"}
ON = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}
POST = "POST /v1/images/generations"
REQUEST = GenerationRequest(
    prompt="a crimson secret",
    negative_prompt="an azure secret",
    seed=2**53 - 1,
    steps=5,
    guidance_scale=4.5,
    height=64,
    width=128,
    sampler="euler",
    num_images=2,
    truncate_prompt=False,
)


@pytest.fixture
def collected() -> Iterator[Collector]:
    with collector() as here:
        yield here


@pytest.fixture
def tracer(collected: Collector, monkeypatch: pytest.MonkeyPatch) -> Iterator[Tracer]:
    """One that tells `collected` when it is closed."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collected.url)
    tracer = Tracer("here", "shapes")
    yield tracer
    tracer.close()


@pytest.fixture
def answered(tracer: Tracer, collected: Collector) -> Callable[..., Entry]:
    """A request that ends in this way."""

    def answer(error: BaseException | None = None, name: str = POST, **headers: str) -> Entry:
        entry = Entry("req_1", "openai")
        with contextlib.suppress(type(error) if error else ()), tracer.request(name, headers, entry):
            if error is not None:
                raise error
        return entry

    return answer


def test_an_answered_request_is_a_span_in_its_callers_trace(answered, tracer, collected):
    entry = answered(**TRACEPARENT)
    tracer.close()
    (span,) = collected.spans
    assert (span.trace, span.parent, span.kind, span.service, span.is_fault) == (TRACE, CALLER, SERVER, "here", False)
    assert entry.facts["trace_id"] == TRACE
    assert span.attributes == {
        "http.request.method": "POST",
        "http.route": "/v1/images/generations",
        "http.response.status_code": 200,
        "sdzero.request_id": "req_1",
    }


@pytest.mark.parametrize(
    ("error", "code", "status", "is_fault"),
    [
        (InvalidField.of("prompt", "a crimson secret", "less"), "invalid_field", 400, False),
        (asyncio.CancelledError(), "cancelled", 499, False),
        (EngineLost("a crimson secret"), "engine_lost", 503, True),
        (ValueError("a crimson secret"), "internal", 500, True),
    ],
    ids=["refused", "hung up", "unavailable", "bug"],
)
def test_a_problem_is_told_by_its_code_and_never_by_its_text(
    answered, tracer, collected, error, code, status, is_fault
):
    answered(error)
    tracer.close()
    (span,) = collected.spans
    assert span.attributes["error.type"] == code
    assert span.attributes["http.response.status_code"] == status
    assert span.is_fault is is_fault
    assert b"secret" not in collected.bytes


def test_grpc_has_its_own_words(answered, tracer, collected):
    answered(InternalError("no"), "inference.GRPCInferenceService/ModelInfer")
    tracer.close()
    (span,) = collected.spans
    assert span.attributes["rpc.method"] == span.name == "inference.GRPCInferenceService/ModelInfer"
    assert span.attributes["rpc.response.status_code"] == "INTERNAL"
    assert not [name for name in span.attributes if name.startswith("http")]


def test_a_stream_that_fails_after_its_first_byte_is_a_fault_with_status_200(tracer, collected):
    entry = Entry("req_1", "openai")
    with tracer.request(POST, {}, entry) as span:
        span.answered(200)
        entry.failed(EngineLost("gone"))
    tracer.close()
    (span,) = collected.spans
    assert (span.attributes["http.response.status_code"], span.attributes["error.type"]) == (200, "engine_lost")
    assert span.is_fault


def test_asking_whether_it_is_ready_yet_is_no_span(answered, tracer, collected):
    answered(NotReady("the model is loading"))
    answered()
    tracer.close()
    assert len(collected.spans) == 1


@given(headers=st.dictionaries(st.sampled_from(["traceparent", "tracestate"]), st.text()))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50, deadline=None)
def test_nonsense_from_a_caller_begins_a_trace_of_our_own(answered, headers):
    assert int(str(answered(**headers).facts["trace_id"]), 16) > 0


def test_a_caller_that_samples_nothing_gets_nothing_and_the_next_process_hears_so(tracer, collected):
    with tracer.request(POST, {"traceparent": f"00-{TRACE}-{CALLER}-00"}, Entry("req_1", "openai")):
        with tracer.span("admission"):
            sent = tracer.headers()
        tracer.cold_start([Phase("engine", "torch", 0.0, 1.0)], zero=time.time())
    tracer.close()
    assert sent["traceparent"].startswith(f"00-{TRACE}-")
    assert sent["traceparent"].endswith("-00")
    assert collected.spans == []


def test_steps_are_within_each_other_and_name_themselves_to_the_next_process(tracer, collected):
    with tracer.request(POST, {}, Entry("req_1", "openai")), tracer.call(REQUEST):
        sent = tracer.headers()["traceparent"]
    tracer.close()
    outer, inner = collected.one(POST), collected.one("generate_content shapes")
    assert inner.parent == outer.id
    assert outer.holds(inner)
    assert sent.startswith(f"00-{outer.trace}-{inner.id}-")
    assert inner.kind == CLIENT
    assert inner.attributes == {
        "gen_ai.operation.name": "generate_content",
        "gen_ai.provider.name": "sdzero",
        "gen_ai.output.type": "image",
        "gen_ai.request.model": "shapes",
        "gen_ai.request.seed": 2**53 - 1,
        "gen_ai.request.choice.count": 2,
        "sdzero.steps": 5,
        "sdzero.height": 64,
        "sdzero.width": 128,
        "sdzero.sampler": "euler",
    }
    assert b"secret" not in collected.bytes


async def test_tasks_do_not_mix_their_traces(tracer, collected):
    together = asyncio.Barrier(2)

    async def request(id: str) -> None:
        with tracer.request(f"POST /{id}", {}, Entry(id, "openai")):
            await together.wait()
            with tracer.span(f"step of {id}"):
                await together.wait()

    await asyncio.gather(request("a"), request("b"))
    tracer.close()
    for id in ("a", "b"):
        assert collected.one(f"step of {id}").parent == collected.one(f"POST /{id}").id


async def test_a_task_that_began_elsewhere_goes_on_with_what_was_kept(tracer, collected):
    with tracer.request(POST, {}, Entry("req_1", "openai")), tracer.span("admission"):
        tracer.keep("gen_1")

    async def run(name: str) -> None:
        with tracer.span(name, kept="gen_1"):
            pass

    await asyncio.create_task(run("generation"))
    await asyncio.create_task(run("by another edge"))
    tracer.close()
    assert collected.one("generation").parent == collected.one(POST).id
    assert collected.one("by another edge").parent == ""


def test_what_nobody_comes_for_is_not_kept_for_ever(tracer, collected, monkeypatch):
    monkeypatch.setattr(tracing, "KEPT", 2)
    for name in ("a", "b", "c"):
        with tracer.request(f"POST /{name}", {}, Entry(name, "openai")):
            tracer.keep(name)
    for name in ("a", "b", "c"):
        with tracer.span(f"generation of {name}", kept=name):
            pass
    tracer.close()
    assert [collected.one(f"generation of {name}").parent for name in ("a", "b", "c")] == [
        "",
        collected.one("POST /b").id,
        collected.one("POST /c").id,
    ]


def test_stages_follow_each_other_until_now(tracer, collected):
    before = time.time()
    with tracer.request(POST, {}, Entry("req_1", "openai")):
        tracer.stages([("queue", 1.0), ("denoise", 2.0), ("pack", 0.5)])
    tracer.close()
    queue, denoise, pack = (collected.one(name) for name in ("queue", "denoise", "pack"))
    assert queue.ended == pytest.approx(denoise.began)
    assert denoise.ended == pytest.approx(pack.began)
    assert before <= pack.ended <= collected.one(POST).ended + 1e-6
    assert pack.ended - queue.began == pytest.approx(3.5, abs=1e-6)


@pytest.mark.parametrize("headers", [TRACEPARENT, {}], ids=["called", "not called"])
def test_a_start_is_told_at_its_own_times_beside_the_request(tracer, collected, headers):
    zero = time.time() - 10
    with tracer.request(POST, headers, Entry("req_1", "http")):
        tracer.cold_start([Phase("server", "imports", 0.0, 2.0), Phase("engine", "torch", 1.0, 4.0)], zero)
    tracer.close()
    whole, torch = collected.one("cold_start"), collected.one("engine torch")
    assert whole.parent == (CALLER if headers else collected.one(POST).id)
    assert torch.parent == collected.one("server imports").parent == whole.id
    assert (torch.began - zero, torch.ended - zero) == (pytest.approx(1.0, abs=1e-5), pytest.approx(5.0, abs=1e-5))
    assert whole.holds(torch)


def test_the_variables_win_over_our_names(collected, monkeypatch):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collected.url)
    monkeypatch.setenv("OTEL_SERVICE_NAME", "theirs")
    tracer = Tracer("ours", "shapes")
    with tracer.span("step"):
        pass
    tracer.close()
    assert collected.one("step").service == "theirs"


@pytest.mark.parametrize(
    ("environ", "on"),
    [
        ({}, False),
        (ON, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://collector:4318/v1/traces"}, True),
        ({"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://collector:4318/v1/metrics"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, False),
        (ON | {"OTEL_SDK_DISABLED": "True"}, False),
        (ON | {"OTEL_TRACES_EXPORTER": "none"}, False),
        (ON | {"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}, True),
        (ON | {"OTEL_TRACES_EXPORTER": "console"}, False),
        (ON | {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, False),
        (ON | {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf"}, True),
    ],
)
def test_only_opentelemetrys_own_variables_switch_it_on(environ, on):
    assert Tracer("here", "shapes", environ).on is on


def test_without_the_extra_it_stays_off(monkeypatch):
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    assert not Tracer("here", "shapes", ON).on


def test_variables_that_the_sdk_does_not_take_cost_the_traces_and_not_the_request(tracer, collected, monkeypatch):
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "1")  # smaller than a batch
    entry = Entry("req_1", "openai")
    with tracer.request(POST, TRACEPARENT, entry) as span, tracer.span("step"):
        assert span is NOTHING
        assert tracer.headers() == {}
    assert "trace_id" not in entry.facts
    assert collected.spans == []


def test_a_collector_that_never_answers_is_not_waited_for(monkeypatch):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "2")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        tracer = Tracer("here", "shapes")
        with tracer.request(POST, {}, Entry("req_1", "openai")):
            pass
        tracer.close(seconds=0.1)
        # It still tries, in a thread that the end of the process does not wait for.
        (trying,) = [thread for thread in threading.enumerate() if thread.name == "traces"]
        assert trying.daemon
    trying.join()


@pytest.mark.parametrize("process", ["predictor.edge.app", "predictor.server.service, predictor.server.routes"])
def test_nothing_of_it_is_imported_where_nobody_asked(process, monkeypatch):
    for name in tracing.ADDRESSES:
        monkeypatch.delenv(name, raising=False)
    program = f"""
import sys, {process}
from predictor.asgi.journal import Entry
from predictor.asgi.tracing import Tracer
from predictor.core.timeline import Phase
tracer, entry = Tracer("here", "shapes"), Entry("req_1", "http")
tracer.warm()
with tracer.request("POST /v2", {TRACEPARENT}, entry) as span, tracer.span("step"), tracer.span("other", kept="a"):
    span.tell({{"a": 1}})
    tracer.keep("a")
    tracer.past("wake", 0.0, 1.0)
    tracer.stages([("queue", 1.0)])
    tracer.cold_start([Phase("engine", "torch", 0.0, 1.0)], 0.0)
    assert tracer.headers() == {{}}
tracer.close()
assert entry.facts == {{}}
print([name for name in sys.modules if name.startswith(("opentelemetry", "predictor.asgi.otlp"))])
"""
    run = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.splitlines()[-1] == "[]"
