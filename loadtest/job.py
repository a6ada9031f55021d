"""What the generator's process is told, as a file: requests, moments, and whom to ask. Secrets come by environment."""

from pathlib import Path
from typing import Final

import msgspec

from loadtest.plan import Shot

KEY: Final = "SDZERO_API_KEY"  # sent as a bearer token to every target
SAMPLES: Final = "samples.csv"
PICTURES: Final = "pictures"  # files of repeated identities, each under its digest
STARTED: Final = "started.json"
FAILURE: Final = "failure.txt"  # why the generator gave up, in words


class TargetSpec(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody who is asked."""

    url: str  # of gRPC: HOST:PORT
    dialect: str
    model: str
    headers: dict[str, str] = {}
    verify: bool = True
    greet: str = ""  # a path that wakes nobody, asked for before the clock starts


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """One cycle of a run."""

    targets: dict[str, TargetSpec]
    shots: list[Shot]
    warm_up: list[Shot] = []
    cycle: int = 0
    timeout: float
    retries: int = 0
    backoff: float = 1.0
    folder: str
    metrics_port: int = 0  # of the Prometheus exporter; 0 is none


class Started(msgspec.Struct, frozen=True, kw_only=True):
    """When the run began, on the machine's clock and on everybody's."""

    at: float  # predictor.clock
    epoch: float


def read_job(path: Path) -> Job:
    """A job from its file."""
    return msgspec.json.decode(path.read_bytes(), type=Job)


def read_started(folder: Path) -> Started:
    """When the job in this folder began.

    Raises:
        FileNotFoundError: it never did.
    """
    return msgspec.json.decode((folder / STARTED).read_bytes(), type=Started)
