"""An OpenTelemetry collector: what comes over OTLP/HTTP, decoded as the protocol's own messages."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Status

from tests.edge.http_servers import Answer, Web, web


@dataclass(frozen=True)
class Span:
    """Times in seconds since the epoch; ids in hex."""

    service: str
    name: str
    kind: int
    trace: str
    id: str
    parent: str
    began: float
    ended: float
    attributes: dict[str, Any]
    is_fault: bool

    def holds(self, other: "Span") -> bool:
        """Whether the other's time is within this one's; a microsecond is what rounding may take.

        A server may know of its answer's end a moment after its client: these are two processes.
        """
        late = 1e-6 if self.service == other.service else 0.25
        return self.began - 1e-6 <= other.began <= other.ended <= self.ended + late


@dataclass(frozen=True)
class Collector:
    web: Web

    @property
    def url(self) -> str:
        return self.web.url

    @property
    def bytes(self) -> bytes:
        """All that came."""
        return b"".join(came.body for came in self.web.came)

    @property
    def spans(self) -> list[Span]:
        """All that came, by the time at which they began."""
        found = []
        for came in self.web.came:
            assert (came.path, came.headers["content-type"]) == ("/v1/traces", "application/x-protobuf")
            for group in ExportTraceServiceRequest.FromString(came.body).resource_spans:
                service = _plain(group.resource.attributes)["service.name"]
                found += [_span(service, span) for scope in group.scope_spans for span in scope.spans]
        return sorted(found, key=lambda span: span.began)

    def one(self, name: str, **attributes: object) -> Span:
        """The only span of that name, with that `sdzero.` attribute."""
        wanted = {f"sdzero.{key}": value for key, value in attributes.items()}
        (found,) = [s for s in self.spans if s.name == name and wanted.items() <= s.attributes.items()]
        return found


@contextlib.contextmanager
def collector() -> Iterator[Collector]:
    with web(lambda _: Answer()) as server:
        yield Collector(server)


def _span(service: str, span: Any) -> Span:
    assert not span.events
    assert not span.status.message
    return Span(
        service,
        span.name,
        span.kind,
        span.trace_id.hex(),
        span.span_id.hex(),
        span.parent_span_id.hex(),
        span.start_time_unix_nano / 1e9,
        span.end_time_unix_nano / 1e9,
        _plain(span.attributes),
        span.status.code == Status.STATUS_CODE_ERROR,
    )


def _plain(attributes: Any) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in attributes}
