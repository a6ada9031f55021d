"""What was measured on real machines, as the simulator's data. Every number names its source; seconds throughout."""

import math
from dataclasses import dataclass
from typing import Final

# Defaults of a readiness probe (core/v1), which Knative leaves to queue-proxy's; while the server starts, queue-proxy
# lets a probe wait. On the cluster of docs/measurements/cluster/replay-* starts of 0.9 s were counted at once, but for
# those where the first probe came before queue-proxy listened; starts of 6 s were counted after 10.
PROBE_PERIOD: Final = 10.0
PROBE_TIMEOUT: Final = 1.0


@dataclass(frozen=True)
class Rehearsal:
    """What a fresh engine has to do before it steps several images together: predictor/engine/baked/batches.py.

    Until `worth` images have stepped one by one that would have shared steps of a size, and for `seconds` after that,
    they go on to do so. Then a step of up to that size takes as long as one of the next of `sizes`.
    """

    sizes: tuple[int, ...]
    worth: int
    waste: float  # a larger size that is rehearsed serves up to so many times fewer images
    seconds: float


@dataclass(frozen=True)
class StepTimes:
    """Seconds of one device call by number of images in it, linear between the measured sizes.

    Raises:
        ValueError: fewer than two sizes, or sizes that do not begin with 1 and grow.
    """

    seconds: tuple[tuple[int, float], ...]
    rehearsal: Rehearsal | None = None  # None: every size is as fast at once

    def __post_init__(self) -> None:
        sizes = [size for size, _ in self.seconds]
        if len(sizes) < 2 or sizes[0] != 1 or sizes != sorted(set(sizes)):
            raise ValueError(f"step times: got sizes {sizes}; allowed: two or more, growing, the first of them 1")

    def table(self, largest: int) -> list[float]:
        """Seconds for 0 (unused) to `largest` images; past the measured sizes the last slope goes on."""
        points = list(self.seconds)
        table = [0.0]
        for size in range(1, largest + 1):
            while len(points) > 2 and size > points[1][0]:
                points.pop(0)
            (low, fast), (high, slow) = points[:2]
            table.append(fast + (slow - fast) * (size - low) / (high - low))
        return table


@dataclass(frozen=True)
class ColdStart:
    """One measured start: from the process's start until it takes requests, and what the first picture cost more.

    The activator asks the pod itself and sends requests as soon as it answers. The autoscaler counts those pods that
    the kubelet has found ready, which asks once a period: `noticed`, None where only its rule is known. Of `ready`, the
    engine's own start is `engine`, and all that a wake costs; None: the whole of it.
    """

    ready: float
    first_image_extra: float = 0.0
    noticed: float | None = None
    engine: float | None = None

    @property
    def counted(self) -> float:
        """Seconds until the autoscaler counts the pod: the end of the kubelet's first probe that is answered."""
        if self.noticed is not None:
            return max(self.ready, self.noticed)
        return max(self.ready, PROBE_PERIOD * math.ceil((self.ready - PROBE_TIMEOUT) / PROBE_PERIOD))

    @property
    def wake(self) -> float:
        """Seconds until another engine takes requests, where the server is there."""
        return self.ready if self.engine is None else self.engine


@dataclass(frozen=True, kw_only=True)
class Predictor:
    """What a pod runs: how it starts and how fast it draws."""

    name: str
    cold_starts: tuple[ColdStart, ...]
    page_cache_cold: float  # a start's further seconds where the node has not read the files before
    steps: StepTimes
    decode: StepTimes
    rows: int  # images in one call at most
    one_request_at_a_time: bool  # a lock around each call; otherwise rows of strangers share steps
    request_overhead: float  # outside the device: HTTP, tokenising, encoding text
    packing: float  # of one picture into a file, after the device has let go of it
    packers: int  # threads that do so


# docs/measurements/h100-sd15.json, side lean, its seven starts with a warm page cache: marks from the server's
# process_start to its engine_ready; what the first picture took beyond that and the median warm one, 0.437 s; marks
# from the engine's process_start to its ready. Page cache dropped, in the next run on that machine: engine_ready after
# 3.82 s instead of 1.60 (medians; h100-sd15-dropped.json). Step and decode by number of images:
# docs/measurements/starts/h100-batches.json, and its first two steps of a number that is new, less two of those after
# (median): a rehearsal. The warm picture less 50 steps, decoding and packing leaves the overhead. Packing:
# docs/measurements/starts/h100-sd15-four-starts.json, `pack` in Server-Timing.
LEAN: Final = Predictor(
    name="lean",
    cold_starts=(
        ColdStart(1.595, 0.030, engine=1.514),
        ColdStart(1.459, 0.036, engine=1.357),
        ColdStart(1.793, 0.070, engine=1.682),
        ColdStart(1.574, 0.037, engine=1.463),
        ColdStart(1.470, 0.019, engine=1.408),
        ColdStart(1.611, 0.057, engine=1.509),
        ColdStart(1.662, 0.038, engine=1.551),
    ),
    page_cache_cold=2.22,
    steps=StepTimes(
        (
            (1, 0.00735),
            (2, 0.01145),
            (3, 0.01555),
            (4, 0.01961),
            (5, 0.02479),
            (6, 0.02798),
            (7, 0.03326),
            (8, 0.03831),
            (9, 0.04219),
            (10, 0.04669),
            (11, 0.05063),
            (12, 0.05448),
            (13, 0.05938),
            (14, 0.06391),
            (15, 0.06831),
            (16, 0.07182),
        ),
        Rehearsal(sizes=(2, 4, 6, 8, 12, 16), worth=20, waste=1.5, seconds=0.70),
    ),
    decode=StepTimes(((1, 0.009), (2, 0.018), (4, 0.043), (8, 0.072), (12, 0.109), (16, 0.144))),
    rows=16,
    one_request_at_a_time=False,
    request_overhead=0.016,
    packing=0.045,
    packers=4,  # predictor/server/app.py, on four cores or more
)

# The same files, side plain: the port opens, and the first request loads the model; its first_image less port_open and
# the median warm picture, 2.825 s. Its 50 steps are launched by the CPU: up to eight images cost as much a step as one.
# 16 take 105 ms (eager modules on an H200). Decoding: docs/measurements/starts/h100-variants.json, decode_ms_float32.
# Page cache dropped: first_image after 18.63 s instead of 14.90 (medians).
PLAIN: Final = Predictor(
    name="plain",
    cold_starts=(
        ColdStart(4.161, 5.540),
        ColdStart(4.929, 5.814),
        ColdStart(5.107, 6.963),
        ColdStart(5.054, 5.465),
        ColdStart(4.750, 7.806),
        ColdStart(4.715, 7.812),
        ColdStart(5.619, 8.692),
    ),
    page_cache_cold=3.74,
    steps=StepTimes(((1, 0.0553), (8, 0.0553), (16, 0.105))),
    decode=StepTimes(((1, 0.014), (16, 0.229))),
    rows=16,
    one_request_at_a_time=True,
    request_overhead=0.0,
    packing=0.045,
    packers=1,
)

# A request at zero pods to the answer of a service that does nothing: 1.0 to 1.2 s, on a node of two cores with
# Kubernetes 1.34 and Knative 1.21. It covers the decision, the pod's creation and its sandbox, probes and the way back.
PLATFORM_FLOOR: Final = (1.0, 1.2)
# knative/serving cmd/queue: a pod that is told to go waits for so long since its last new request (drainSleepDuration).
DRAIN: Final = 30.0
# The same where the predictor ends it: predictor/server/drain.py waits for CONVERGED, 2 s, and looks once a second.
ENDED_DRAIN: Final = 2.0 + 1.0 / 2
# From a drain's end until the pod is gone: docs/measurements/cluster/proofs/drain.json has 3.5 s from told to gone.
TEARDOWN: Final = 1.0
# An engine that sleeps: from SIGTERM until its memory on the GPU is free. Assumed, for nobody has measured it there;
# predictor/server/link.py kills one that has not ended after 2 s.
ENGINE_END: Final = 0.5
