"""OpenTelemetry's SDK as `tracing.py` uses it; imported only where traces are on.

Resource, sampler, batches, headers and timeouts are the SDK's to read from its own variables. Spans go out in a thread
of its own, and are dropped when the collector stays away.
"""

import threading
from collections.abc import Mapping
from typing import Literal

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanKind, get_current_span, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util import types

from predictor import __version__

Kind = Literal["INTERNAL", "SERVER", "CLIENT"]
_w3c = TraceContextTextMapPropagator()


class Recorder:
    """Starts spans, and sends them when they have ended.

    Args:
        service: `service.name`, unless the SDK's variables say another.
    """

    def __init__(self, service: str) -> None:
        # `Resource.create` would let ours win over what the variables say.
        told = OTELResourceDetector().detect().attributes
        resource = Resource.create({"service.name": service, "service.version": __version__} | dict(told))
        # Never the process's global one: FastAPI would then trace every probe, and every request a second time.
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self._tracer = self._provider.get_tracer("sdzero", __version__)

    def begin(self, name: str, within: Context, kind: Kind) -> Span:
        """A span from now on."""
        return self._tracer.start_span(name, within, SpanKind[kind])

    def past(self, name: str, began: float, ended: float, within: Context, attributes: types.Attributes = None) -> Span:
        """A span that is over; in seconds since the epoch."""
        span = self._tracer.start_span(name, within, attributes=attributes, start_time=int(began * 1e9))
        span.end(int(ended * 1e9))
        return span

    def close(self, seconds: float) -> None:
        """Send what has not been sent, for so long at most."""
        # The provider's own patience is half a minute, and is no argument.
        shutdown = threading.Thread(target=self._provider.shutdown, name="traces", daemon=True)
        shutdown.start()
        shutdown.join(seconds)


def received(headers: Mapping[str, str]) -> Context:
    """The caller's span, from headers in lower case (W3C Trace Context); without one, or with nonsense, empty."""
    return _w3c.extract(headers, Context())


def headers(span: Span) -> dict[str, str]:
    """What tells another process of the span (W3C Trace Context)."""
    carrier: dict[str, str] = {}
    _w3c.inject(carrier, within(span))
    return carrier


def within(span: Span | None) -> Context:
    """For spans within this one; without one they begin a trace."""
    return Context() if span is None else set_span_in_context(span, Context())


def has_span(context: Context) -> bool:
    """Whether what is begun within belongs to a trace already."""
    return get_current_span(context).get_span_context().is_valid
