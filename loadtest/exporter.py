"""Figures of a run that goes on, for Prometheus. Afterwards the samples are what counts."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server

from loadtest.samples import Sample

_SECONDS = (0.05, 0.1, 0.2, 0.5, 1, 2, 3, 4, 5, 6, 8, 10, 15, 20, 30, 60, 120, 300, 600)
_LATE = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 1)


class Exporter:
    """Serves `/metrics` on a port of its own, in a thread (under gevent: a greenlet)."""

    def __init__(self, port: int) -> None:
        registry = CollectorRegistry()
        labels = ("dialect", "target", "start")
        self._latency = Histogram(
            "sdzero_loadtest_latency_seconds",
            "From the intended start to the last byte, of requests with their pictures",
            labels,
            buckets=_SECONDS,
            registry=registry,
        )
        self._late = Histogram(
            "sdzero_loadtest_lateness_seconds",
            "By which the generator missed the intended start",
            buckets=_LATE,
            registry=registry,
        )
        self._attempts = Counter(
            "sdzero_loadtest_attempts", "By outcome", ("dialect", "target", "outcome"), registry=registry
        )
        self._in_flight = Gauge("sdzero_loadtest_in_flight", "Requests without an outcome", registry=registry)
        self._server, self._thread = start_http_server(port, registry=registry)

    def add(self, sample: Sample, dialect: str, in_flight: int) -> None:
        """An attempt that ended."""
        start = {True: "cold", False: "warm", None: "unknown"}[sample.cold]
        self._attempts.labels(dialect, sample.target, sample.outcome).inc()
        self._late.observe(max(0.0, sample.lateness))
        self._in_flight.set(in_flight)
        if sample.outcome == "ok":
            self._latency.labels(dialect, sample.target, start).observe(sample.latency)

    def close(self) -> None:
        """Free the port."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
