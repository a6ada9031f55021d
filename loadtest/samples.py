"""What a run leaves of every attempt: one row of `samples.csv`, from which everything else is computed.

Times are seconds since the run's start on the generator's clock (`predictor.clock`). `intended` is when the schedule
wanted the request to begin: latency counts from there, whatever kept the generator from sending it.
"""

import csv
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final, Literal, get_args

import msgspec

Outcome = Literal["ok", "wrong", "duplicated", "refused", "failed", "timeout", "lost"]
OUTCOMES: Final[tuple[Outcome, ...]] = get_args(Outcome)
MEANING: Final[dict[Outcome, str]] = {
    "ok": "every picture that was asked for",
    "wrong": "pictures that are not what was asked for: other pixels, another size, too few, or another request's",
    "duplicated": "answered more than once: more pictures than asked for, or one of them twice",
    "refused": "turned away on purpose, with a problem that says why",
    "failed": "the service's fault, and it said so",
    "timeout": "the client gave up waiting: censored, the true latency is longer",
    "lost": "no answer, or not the whole of one: refused connections, broken ones, streams without an end",
}


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt of one request. Only a request's last attempt is its outcome."""

    index: int  # of the request in the run's schedule
    attempt: int = 0
    target: str = "a"
    cycle: int = 0
    identity: int  # equal numbers asked for the same pictures
    intended: float
    sent: float
    connected: float  # the connection stood: at once where one was kept alive
    first_byte: float | None = None  # of the answer's head; of a stream it says little
    finished: float
    outcome: Outcome
    status: int = 0  # HTTP's, or gRPC's; 0 without an answer
    code: str = ""  # of the problem, where it has one
    images: int = 1  # asked for
    steps: int = 0  # 0: the model's default
    size: str = "auto"
    digests: str = ""  # SHA-256 of each picture's file, 16 digits, with spaces between them
    cold: bool | None = None  # waited for a start, by the answer or (from zero) by its moment; None: nobody knows
    cache: str = ""  # x-cache
    job: str = ""  # x-sdzero-job
    gpu_seconds: float | None = None
    server_timing: str = ""
    bytes: int = 0
    error: str = ""

    @property
    def latency(self) -> float:
        """Seconds from the intended start to the last byte, or until the client gave up."""
        return self.finished - self.intended

    @property
    def lateness(self) -> float:
        """Seconds by which the generator missed the intended start."""
        return self.sent - self.intended


def outcomes(samples: Iterable[Sample]) -> list[Sample]:
    """The last attempt of each request, in order of the schedule.

    Raises:
        ValueError: a request has two attempts of one number: the books of this run are wrong.
    """
    last: dict[tuple[int, int], Sample] = {}
    seen: set[tuple[int, int, int]] = set()
    for sample in samples:
        name = (sample.cycle, sample.index, sample.attempt)
        if name in seen:
            raise ValueError(f"cycle {name[0]}, request {name[1]}, attempt {name[2]}: recorded twice")
        seen.add(name)
        before = last.get(name[:2])
        if before is None or sample.attempt > before.attempt:
            last[name[:2]] = sample
    return [last[name] for name in sorted(last)]


def books(samples: Sequence[Sample]) -> dict[Outcome, int]:
    """How many requests ended in which way; every outcome is there."""
    counted = Counter(sample.outcome for sample in samples)
    return {outcome: counted[outcome] for outcome in OUTCOMES}


def write(path: Path, samples: Iterable[Sample]) -> None:
    """Samples as CSV with a line of names."""
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(Sample.__struct_fields__)
        rows.writerows(row(sample) for sample in samples)


def row(sample: Sample) -> list[object]:
    """A line of the CSV: moments to the microsecond, nothing for what is not known."""
    values = (getattr(sample, name) for name in Sample.__struct_fields__)
    return ["" if value is None else round(value, 6) if isinstance(value, float) else value for value in values]


def read(path: Path) -> list[Sample]:
    """The samples of a CSV file.

    Raises:
        ValueError: naming the file, the line, and what is wrong in it.
    """
    found = []
    with path.open(newline="", encoding="utf-8") as file:
        rows = csv.DictReader(file)
        missing = set(Sample.__struct_fields__) - set(rows.fieldnames or ())
        if missing:
            raise ValueError(f"{path.name}: no column {', '.join(sorted(missing))}")
        for line in rows:
            cells: dict[str, object] = {name: value for name, value in line.items() if value != "" or name in _TEXTS}
            if "cold" in cells:
                cells["cold"] = cells["cold"] == "True"
            try:
                found.append(msgspec.convert(cells, Sample, strict=False))
            except msgspec.ValidationError as error:
                raise ValueError(f"{path.name}, line {rows.line_num}: {error}") from None
    return found


_TEXTS: Final = {"code", "digests", "cache", "job", "server_timing", "error"}
