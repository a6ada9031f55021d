"""OpenTelemetry traces: a request is one trace through edge and predictor.

    POST /v1/images/generations                        edge
    ├─ admission
    └─ generation                                      a trace of its own where another edge runs it
       ├─ generate_content MODEL                       the call of the predictor, however many tries it takes
       │  ├─ wake                                      until the predictor took the request, if it slept
       │  ├─ cold_start                                predictor; once for each start, at its true times
       │  │  └─ server imports, engine torch, …        `core/timeline.py`
       │  └─ POST /v2/models/{model}/generate_stream   predictor
       │     └─ queue, encode, denoise, decode, pack   made when the pictures are there, of their own seconds
       └─ store

Traces are on where a collector's address is given by OpenTelemetry's own variables (OTEL_EXPORTER_OTLP_ENDPOINT or
OTEL_EXPORTER_OTLP_TRACES_ENDPOINT) and the extra `telemetry` is installed; else nothing of OpenTelemetry is imported.
Neither prompts nor keys nor the texts of errors, which may quote prompts, are in them.

Names: OpenTelemetry's semantic conventions for HTTP, RPC, FaaS and generative AI; `sdzero.*` where they have no word.
"""

import asyncio
import importlib.util
import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

import structlog

from predictor.asgi.journal import Entry
from predictor.core.problems import PROBLEMS, Cancelled, InternalError, NotReady, Problem
from predictor.core.request import GenerationRequest
from predictor.core.timeline import Phase

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Span as Recorded

    from predictor.asgi.otlp import Kind, Recorder

Attributes = Mapping[str, str | int | float | bool]
ADDRESSES = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
NEEDED = ("opentelemetry.sdk.trace", "opentelemetry.exporter.otlp.proto.http.trace_exporter")
OPERATION = "generate_content"
FAULTS = {name for name, problem in PROBLEMS.items() if problem.http >= 500}  # of ours, and not of the caller
KEPT = 4096  # spans that wait for somebody to go on with them
LAST_WORDS = 2.0  # seconds at the end of a process in which the last spans may go out
log = structlog.get_logger("sdzero.traces")


class Span:
    """A span while it lasts; without one of OpenTelemetry's behind it, nothing at all.

    Args:
        caller: what a request has brought with it; of the request's own span.
        request: the span of the request that this is a step of, if it is one.
    """

    def __init__(
        self,
        recorded: "Recorded | None" = None,
        *,
        caller: "Context | None" = None,
        request: "Span | None" = None,
    ) -> None:
        self.recorded = recorded
        self.caller = caller
        self.request = request or self
        self.status: int | None = None

    def tell(self, attributes: Attributes) -> None:
        """Add these."""
        if self.recorded is not None:
            self.recorded.set_attributes(attributes)

    def answered(self, status: int) -> None:
        """The HTTP status that the client got."""
        self.status = status


NOTHING = Span()
_current: ContextVar[Span] = ContextVar("span", default=NOTHING)


class Tracer:
    """One for each process; when traces are off, every method returns at once.

    Args:
        service: `service.name`, unless OTEL_SERVICE_NAME says another.
        model: `gen_ai.request.model`.
    """

    def __init__(self, service: str, model: str, environ: Mapping[str, str] = os.environ) -> None:
        self.on = wanted(environ)
        self._service = service
        self._model = model
        self._kept: dict[str, Span] = {}
        self._opening = threading.Lock()
        self._recorder: Recorder | None = None

    def warm(self) -> None:
        """Import in the background what the first span needs, a tenth of a second."""
        if self.on:
            threading.Thread(target=self._opened, name="traces", daemon=True).start()

    def close(self, seconds: float = LAST_WORDS) -> None:
        """Send what has not been sent, for so long at most."""
        if self._recorder is not None:
            self._recorder.close(seconds)

    @contextmanager
    def request(self, name: str, headers: Mapping[str, str], entry: Entry) -> Iterator[Span]:
        """The time in which a request is answered, in its caller's trace if `headers` name one.

        Args:
            name: `METHOD ROUTE` of HTTP, `SERVICE/METHOD` of gRPC.
            headers: by name in lower case.
            entry: knows in the end what became of it; the log's line gets the trace's id.
        """
        recorder = self._opened()
        if recorder is None:
            yield NOTHING
            return
        from predictor.asgi import otlp

        caller = otlp.received(headers)
        recorded = recorder.begin(name, caller, "SERVER")
        entry.facts["trace_id"] = f"{recorded.get_span_context().trace_id:032x}"
        span = Span(recorded, caller=caller)
        token = _current.set(span)
        outcome = "ok"
        try:
            yield span
            outcome = entry.outcome
        except NotReady:
            # The edge asks until there is an answer; its tries would bury what they wait for, `cold_start`.
            outcome = ""
            raise
        except BaseException as error:
            outcome = code(error)
            raise
        finally:
            _current.reset(token)
            if outcome:
                span.tell(_protocol(name, span.status, outcome))
                span.tell({"sdzero.request_id": entry.id})
                _end(recorded, outcome, is_fault=outcome in FAULTS)

    @contextmanager
    def span(self, name: str, *, kind: "Kind" = "INTERNAL", kept: str | None = None) -> Iterator[Span]:
        """A step of what the current span does, or of what `keep` has put aside under the name `kept`."""
        recorder = self._opened()
        if recorder is None:
            yield NOTHING
            return
        from predictor.asgi import otlp

        parent = _current.get() if kept is None else self._kept.pop(kept, NOTHING)
        recorded = recorder.begin(name, otlp.within(parent.recorded), kind)
        span = Span(recorded, request=parent.request if parent.recorded is not None else None)
        token = _current.set(span)
        outcome = "ok"
        try:
            yield span
        except BaseException as error:
            outcome = code(error)
            raise
        finally:
            _current.reset(token)
            _end(recorded, outcome, is_fault=outcome != "ok")

    @contextmanager
    def call(self, request: GenerationRequest) -> Iterator[Span]:
        """The time in which the predictor is asked for pictures."""
        with self.span(f"{OPERATION} {self._model}", kind="CLIENT") as span:
            self.describe(request)
            yield span

    def past(self, name: str, began: float, ended: float, attributes: Attributes | None = None) -> None:
        """A step of the current span that is over; in seconds since the epoch."""
        if recorder := self._opened():
            from predictor.asgi import otlp

            recorder.past(name, began, ended, otlp.within(_current.get().recorded), attributes)

    def stages(self, durations: Sequence[tuple[str, float]]) -> None:
        """Steps of the current span, one after the other, the last of which ends now; in seconds."""
        began = time.time() - sum(seconds for _, seconds in durations)
        for name, seconds in durations:
            self.past(name, began, began + seconds)
            began += seconds

    def cold_start(self, phases: Sequence[Phase], zero: float) -> None:
        """The start of this process and of its engine, told beside the current request, for it began before that came.

        Args:
            phases: the parts of it.
            zero: when their times begin, in seconds since the epoch.
        """
        recorder = self._opened()
        if recorder is None or not phases:
            return
        from predictor.asgi import otlp

        request = _current.get()
        caller = request.caller
        parent = caller if caller is not None and otlp.has_span(caller) else otlp.within(request.recorded)
        began, ended = min(p.start for p in phases), max(p.start + p.seconds for p in phases)
        whole = otlp.within(recorder.past("cold_start", zero + began, zero + ended, parent))
        for phase in phases:
            started = zero + phase.start
            recorder.past(f"{phase.process} {phase.name}", started, started + phase.seconds, whole)

    def describe(self, request: GenerationRequest) -> None:
        """Tell of the current span what is being made."""
        if self.on:
            _current.get().tell(
                {
                    "gen_ai.operation.name": OPERATION,
                    "gen_ai.provider.name": "sdzero",
                    "gen_ai.output.type": "image",
                    "gen_ai.request.model": self._model,
                    "gen_ai.request.seed": request.seed,
                    "gen_ai.request.choice.count": request.num_images,
                    "sdzero.steps": request.steps,
                    "sdzero.height": request.height,
                    "sdzero.width": request.width,
                    "sdzero.sampler": request.sampler,
                }
            )

    def tell(self, attributes: Attributes) -> None:
        """Add these to the current span."""
        _current.get().tell(attributes)

    def headers(self) -> dict[str, str]:
        """What tells another process of the current span; empty without one."""
        span = _current.get()
        if span.recorded is None:
            return {}
        from predictor.asgi import otlp

        return otlp.headers(span.recorded)

    def keep(self, name: str) -> None:
        """Put the current request aside, so that another task can go on with its trace."""
        if self.on:
            self._kept[name] = _current.get().request
            if len(self._kept) > KEPT:
                del self._kept[next(iter(self._kept))]

    def _opened(self) -> "Recorder | None":
        """What records spans; None when traces are off."""
        if self.on and self._recorder is None:
            with self._opening:
                try:
                    from predictor.asgi.otlp import Recorder

                    self._recorder = self._recorder or Recorder(self._service)
                except Exception:
                    # It may not take the values of its own variables. Pictures can be made all the same.
                    log.exception("no traces")
                    self.on = False
        return self._recorder


def wanted(environ: Mapping[str, str]) -> bool:
    """Whether traces are asked for and can be had; a warning says why those that are asked for cannot."""
    off = environ.get("OTEL_SDK_DISABLED", "").lower() == "true" or environ.get("OTEL_TRACES_EXPORTER") == "none"
    if off or not any(environ.get(name) for name in ADDRESSES):
        return False
    protocol = next((environ[name] for name in PROTOCOLS if environ.get(name)), "http/protobuf")
    exporter = environ.get("OTEL_TRACES_EXPORTER") or "otlp"
    if protocol != "http/protobuf":
        log.warning("no traces", OTEL_EXPORTER_OTLP_PROTOCOL=protocol, allowed="http/protobuf")
    elif exporter != "otlp":
        log.warning("no traces", OTEL_TRACES_EXPORTER=exporter, allowed="otlp, none")
    elif not _installed():
        log.warning("no traces", missing="the extra `telemetry`: pip install 'sdzero[telemetry]'")
    else:
        return True
    return False


def code(error: BaseException) -> str:
    """The code of the problem that an exception is to the caller."""
    if isinstance(error, Problem):
        return error.code
    return Cancelled.code if isinstance(error, asyncio.CancelledError | GeneratorExit) else InternalError.code


def _protocol(name: str, status: int | None, outcome: str) -> Attributes:
    """What the conventions want to know of an exchange over HTTP, or over gRPC."""
    problem = PROBLEMS.get(outcome)
    method, _, route = name.partition(" ")
    if not route:
        grpc = problem.grpc if problem else "OK"
        return {"rpc.system.name": "grpc", "rpc.method": name, "rpc.response.status_code": grpc}
    status = status or (problem.http if problem else 200)
    return {"http.request.method": method, "http.route": route, "http.response.status_code": status}


def _end(recorded: "Recorded", outcome: str, *, is_fault: bool) -> None:
    from opentelemetry.trace import StatusCode

    if outcome != "ok":
        recorded.set_attribute("error.type", outcome)
    if is_fault:
        # Without a description: a problem's message may quote the caller's text.
        recorded.set_status(StatusCode.ERROR)
    recorded.end()


def _installed() -> bool:
    try:
        return all(importlib.util.find_spec(name) is not None for name in NEEDED)
    except ModuleNotFoundError:
        return False
