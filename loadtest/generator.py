"""The locustfile of `sdzero loadtest`: one Locust user that drives a whole schedule. People want `locustfile.py`."""

import gc
import os
import secrets
import time
from contextlib import suppress
from http.client import HTTPException
from pathlib import Path
from typing import Any

import gevent
import msgspec
from locust import User, constant, events, task
from locust.exception import StopUser

from loadtest.asking import Attempt, HttpSender
from loadtest.exporter import Exporter
from loadtest.job import FAILURE, KEY, STARTED, Job, Started, read_job
from loadtest.openloop import Exhausted, OpenLoop, Record, fire
from loadtest.plan import Shot
from loadtest.senders import sender
from predictor.clock import now

_LEAD = 0.05  # seconds between the start of the clock and now


@events.init_command_line_parser.add_listener  # type: ignore[untyped-decorator]
def _arguments(parser: Any) -> None:
    parser.add_argument("--job", required=True, include_in_web_ui=False, help="file of a loadtest.job.Job")


class Generator(User):  # type: ignore[misc]
    """Drives the job's schedule once, and ends Locust."""

    fixed_count = 1
    wait_time = constant(0)

    @task  # type: ignore[untyped-decorator]
    def drive(self) -> None:
        """All of it."""
        self.environment.process_exit_code = 3
        job = read_job(Path(self.environment.parsed_options.job))
        try:
            _drive(self.environment, job)
            self.environment.process_exit_code = 0
        except (Exhausted, ValueError, OSError) as error:
            (Path(job.folder) / FAILURE).write_text(str(error), encoding="utf-8")
        finally:
            # Not from here: it ends this very greenlet.
            gevent.spawn(self.environment.runner.quit)
        raise StopUser


def _drive(environment: Any, job: Job) -> None:
    folder, key = Path(job.folder), os.environ.get(KEY)
    senders = {name: sender(spec, job.timeout, key) for name, spec in job.targets.items()}
    record = Record(folder)
    exporter = Exporter(job.metrics_port) if job.metrics_port else None

    def ended(shot: Shot, attempt: Attempt) -> None:
        record.add(attempt, repeated=shot.repeated)
        fire(environment.events, job.targets[shot.target].dialect, attempt)
        if exporter:
            exporter.add(attempt.sample, job.targets[shot.target].dialect, loop.in_flight)

    loop = OpenLoop(
        senders,
        timeout=job.timeout,
        retries=job.retries,
        backoff=job.backoff,
        ended=ended,
        cycle=job.cycle,
        run=secrets.token_hex(4),
    )
    for name, spec in job.targets.items():
        one = senders[name]
        if isinstance(one, HttpSender):
            # Whoever is not there will be lost requests, which is what the run is to find out.
            with suppress(OSError, HTTPException):
                one.greet(spec.greet)
    for shot in job.warm_up:
        loop.ask(shot, now())
    # What is there now stays: looking through it in the middle of a run would make requests late.
    gc.collect()
    gc.freeze()
    start = now() + _LEAD
    (folder / STARTED).write_bytes(msgspec.json.encode(Started(at=start, epoch=time.time() + _LEAD)))
    try:
        loop.drive(job.shots, start)
    finally:
        record.close()
