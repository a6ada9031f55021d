"""The server's metrics: names, units, buckets and every label value, in one place."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from predictor.core.problems import PROBLEMS

# KServe's own histograms end at 10 s; a cold start or a long queue would all fall into +Inf.
SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 3, 5, 7.5, 10, 15, 20, 30, 45, 60, 90, 120, 180, 300, 450, 600)
STEP_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1, 2.5, 5, 10, 60, 600)
ROWS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
OUTCOMES = ("ok", *PROBLEMS)
STAGES = ("encode", "step", "decode")


class Metrics:
    """Counters start at 0 for every label value, so that the first event is an increase that `rate()` can see."""

    def __init__(self, model: str, registry: CollectorRegistry) -> None:
        self.requests = Counter("sdzero_requests", "requests by outcome", ["outcome"], registry=registry)
        self.request_seconds = Histogram(
            "sdzero_request_seconds",
            "from the first byte of a request to the last of its answer",
            ["model", "outcome"],
            buckets=SECONDS,
            registry=registry,
        )
        self.queue_seconds = Histogram(
            "sdzero_queue_seconds", "before a request's first device call", buckets=SECONDS, registry=registry
        )
        self.step_seconds = Histogram(
            "sdzero_step_seconds", "one device call, by stage", ["stage"], buckets=STEP_SECONDS, registry=registry
        )
        self.batch_rows = Histogram(
            "sdzero_batch_rows", "images that shared one denoising step", buckets=ROWS, registry=registry
        )
        self.cold_start_seconds = Histogram(
            "sdzero_cold_start_seconds", "phases of starting", ["process", "phase"], buckets=SECONDS, registry=registry
        )
        self.gpu_seconds = Counter("sdzero_gpu_seconds", "device time of finished requests", registry=registry)
        self.images = Counter("sdzero_images", "pictures made", registry=registry)
        self.engine_restarts = Counter("sdzero_engine_restarts", "engines started after one died", registry=registry)
        self.engine_wakes = Counter("sdzero_engine_wakes", "engines started after a sleep", registry=registry)
        self.images_in_flight = Gauge(
            "sdzero_images_in_flight", "pictures that wait or are being made", registry=registry
        )
        self.ready = Gauge("sdzero_ready", "1 while requests are taken", registry=registry)
        self.asleep = Gauge("sdzero_asleep", "1 while no engine runs, for nobody needs it", registry=registry)
        self._model = model
        for outcome in OUTCOMES:
            self.requests.labels(outcome)
            self.request_seconds.labels(model, outcome)
        for stage in STAGES:
            self.step_seconds.labels(stage)

    def requested(self, _: str, outcome: str, seconds: float) -> None:
        """One request has ended; `outcome` is `ok` or a problem's code."""
        self.requests.labels(outcome).inc()
        self.request_seconds.labels(self._model, outcome).observe(seconds)

    def stepped(self, stage: str, rows: int, seconds: float) -> None:
        """One device call of the engine has ended."""
        self.step_seconds.labels(stage).observe(seconds)
        if stage == "step":
            self.batch_rows.observe(rows)
