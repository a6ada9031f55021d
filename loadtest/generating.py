"""One cycle of a run: Locust in a process of its own, its samples, and whether its books add up."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from loadtest import samples
from loadtest.job import FAILURE, KEY, SAMPLES, STARTED, Job, Started, read_started
from loadtest.plan import Shot
from loadtest.samples import Sample

GENERATOR: Final = Path(__file__).with_name("generator.py")


class GeneratorFailed(Exception):
    """The Locust process ended before its schedule did."""


def generate(job: Job, folder: Path, key: str | None) -> tuple[Started, list[Sample]]:
    """Run one cycle: when it began, and its samples.

    Raises:
        GeneratorFailed: the process ended before its schedule did, or its books do not add up.
    """
    path, log = folder / "job.json", folder / "locust.log"
    path.write_bytes(msgspec.json.encode(job))
    host = next(iter(job.targets.values())).url
    command = [sys.executable, "-m", "locust", "-f", str(GENERATOR), "--headless", "-u", "1", "-r", "1"]
    # Refused requests are a result and not a failed run.
    command += ["--exit-code-on-error", "0", "--only-summary", "--host", host, "--job", str(path)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LOCUST_")}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(GENERATOR.parents[1]), os.environ.get("PYTHONPATH")]))
    environment |= {KEY: key} if key else {}
    with log.open("wb") as sink:
        ended = subprocess.run(command, stdout=sink, stderr=sink, env=environment, check=False)  # noqa: S603
    if ended.returncode:
        told = folder / FAILURE
        words = (told if told.exists() else log).read_text(encoding="utf-8", errors="replace")[-4000:]
        raise GeneratorFailed(f"the generator ended with status {ended.returncode}: {words}")
    began, found = read_started(folder), samples.read(folder / SAMPLES)
    _check_books(job.shots, found)
    # Results name no hosts; these do, and the run's own samples have everything else.
    for used in (path, log, folder / SAMPLES, folder / STARTED):
        used.unlink()
    return began, found


def _check_books(due: Sequence[Shot], found: Sequence[Sample]) -> None:
    """Every request of the schedule has an outcome, and none that was not in it."""
    planned, ended = {shot.index for shot in due}, {sample.index for sample in samples.outcomes(found)}
    if planned != ended:
        raise GeneratorFailed(
            f"{len(planned - ended)} requests have no outcome, {len(ended - planned)} were not planned"
        )
