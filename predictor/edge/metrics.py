"""The edge's metrics: names, units, buckets and every label value, in one place."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from predictor.core.problems import PROBLEMS

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 3, 5, 7.5, 10, 15, 20, 30, 45, 60, 90, 120, 180, 300, 600)
DIALECTS = ("openai", "v2", "jobs")
OUTCOMES = ("ok", *PROBLEMS)
CACHE = ("hit", "joined", "miss")


class Metrics:
    """Counters start at 0 for every label value, so that the first event is an increase that `rate()` can see."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.requests = Counter(
            "sdzero_edge_requests", "requests by dialect and outcome", ["dialect", "outcome"], registry=registry
        )
        self.request_seconds = Histogram(
            "sdzero_edge_request_seconds",
            "from the first byte of a request to the last of its answer",
            ["dialect"],
            buckets=SECONDS,
            registry=registry,
        )
        self.cache = Counter(
            "sdzero_edge_cache",
            "admitted requests by whether a result or a running one answered",
            ["found"],
            registry=registry,
        )
        self.cache_errors = Counter("sdzero_edge_cache_errors", "cache failures, each a miss", registry=registry)
        self.quota_errors = Counter("sdzero_edge_quota_errors", "quotas that could not be read", registry=registry)
        self.bus_errors = Counter(
            "sdzero_edge_bus_errors", "events that no follower in another edge saw", registry=registry
        )
        self.wakes = Counter("sdzero_edge_wakes", "requests sent to a predictor that slept", registry=registry)
        self.cold_start_seconds = Histogram(
            "sdzero_edge_cold_start_seconds",
            "from sending to a predictor that sleeps to its accepting",
            buckets=SECONDS,
            registry=registry,
        )
        self.images = Counter("sdzero_edge_images", "pictures made and stored", registry=registry)
        self.gpu_seconds = Counter("sdzero_edge_gpu_seconds", "device time of finished generations", registry=registry)
        self.megapixel_steps = Counter(
            "sdzero_edge_megapixel_steps", "pixels x steps / 10^6 of finished generations", registry=registry
        )
        self.predictor_requests = Gauge(
            "sdzero_edge_predictor_requests", "HTTP requests to the predictor since the start", registry=registry
        )
        self.waiting_images = Gauge(
            "sdzero_edge_waiting_images", "images that wait or are being made", registry=registry
        )
        self.deliveries = Counter("sdzero_edge_webhooks", "webhook tries by outcome", ["outcome"], registry=registry)
        for dialect in DIALECTS:
            self.request_seconds.labels(dialect)
            for outcome in OUTCOMES:
                self.requests.labels(dialect, outcome)
        for found in CACHE:
            self.cache.labels(found)
        for outcome in ("delivered", "failed", "dead"):
            self.deliveries.labels(outcome)

    def requested(self, dialect: str, outcome: str, seconds: float) -> None:
        """One request has ended; `outcome` is `ok` or a problem's code."""
        self.requests.labels(dialect, outcome).inc()
        self.request_seconds.labels(dialect).observe(seconds)

    def generated(self, images: int, gpu_seconds: float, megapixel_steps: float) -> None:
        """One generation is done."""
        self.images.inc(images)
        self.gpu_seconds.inc(gpu_seconds)
        self.megapixel_steps.inc(megapixel_steps)
