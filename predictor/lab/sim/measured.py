"""What was measured on real machines, as the simulator's data. Every number names its source; seconds throughout."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class StepTimes:
    """Seconds of one device call by number of images in it, linear between the measured sizes.

    Raises:
        ValueError: fewer than two sizes, or sizes that do not begin with 1 and grow.
    """

    seconds: tuple[tuple[int, float], ...]

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
    """One measured start: from the process's start until it takes requests, and what the first picture cost more."""

    ready: float
    first_image_extra: float = 0.0


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


# docs/measurements/starts/h100-sd15-four-starts.json, side lean: marks engine_ready of its four starts with a warm
# page cache; a first picture took no longer than a warm one. Their denoise / 50 is the step of one image (median); the
# median warm request, 0.561 s, less 50 steps, decoding and packing (44 ms), leaves the overhead. Steps of 2 to 16
# images and decoding at 16 (half precision): docs/measurements/starts/h100-variants.json and docs/cold-start.md. Page
# cache dropped, on an H200: 4.7 s against 2.5 s to the first picture.
LEAN: Final = Predictor(
    name="lean",
    cold_starts=tuple(map(ColdStart, (1.677, 1.640, 1.909, 1.983))),
    page_cache_cold=2.2,
    steps=StepTimes(((1, 0.0085), (2, 0.0119), (4, 0.0198), (8, 0.0369), (16, 0.0717))),
    decode=StepTimes(((1, 0.0105), (16, 0.137))),
    rows=16,
    one_request_at_a_time=False,
    request_overhead=0.081,
    packing=0.045,
    packers=4,  # predictor/server/app.py, on four cores or more
)

# docs/measurements/starts/h100-sd15-four-starts.json, side plain: the port opens, and the first request loads the
# model. The median warm request of 50 steps, 2.77 s, is launched by the CPU: up to eight images cost as much a step as
# one. 16 take 105 ms (eager modules on an H200). Nobody has measured its page cache dropped; the disk reads the same
# weights and more libraries, so the lean engine's further seconds are its least.
PLAIN: Final = Predictor(
    name="plain",
    cold_starts=(
        ColdStart(3.593, 12.765 - 3.593 - 2.77),
        ColdStart(4.268, 11.835 - 4.268 - 2.77),
        ColdStart(3.856, 12.252 - 3.856 - 2.77),
        ColdStart(4.140, 13.506 - 4.140 - 2.77),
    ),
    page_cache_cold=2.2,
    steps=StepTimes(((1, 0.0542), (8, 0.0542), (16, 0.105))),
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
ENDED_DRAIN: Final = 2.0 + 1.0
