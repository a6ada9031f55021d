"""`locust -f loadtest/locustfile.py --host URL`: Locust as its users know it, web page included.

Each Locust user is an open-loop source of its own: it begins `--rate` requests a second (Poisson) and waits for none of
them, so ten users mean ten times the rate, whatever the service does. Response times count from the intended start.
For numbers to quote, `sdzero loadtest` keeps every sample and rounds none; see docs/loadtest.md.
"""

import itertools
import os
import random
import secrets
from collections.abc import Iterator
from typing import Any

from locust import User, constant, events, task

from loadtest.asking import Attempt
from loadtest.dialects import DIALECTS, GRPC
from loadtest.exporter import Exporter
from loadtest.job import KEY, TargetSpec
from loadtest.openloop import OpenLoop, fire
from loadtest.plan import PROMPTS, Shot
from loadtest.senders import sender
from predictor.clock import now


@events.init_command_line_parser.add_listener  # type: ignore[untyped-decorator]
def _arguments(parser: Any) -> None:
    add = parser.add_argument
    add("--dialect", choices=[*DIALECTS, GRPC], default="openai", help="what is spoken")
    add("--rate", type=float, default=0.1, help="requests that each user begins a second, on average")
    add("--model", default="shapes", help="the model's name")
    add("--api-key", default=os.environ.get(KEY, ""), is_secret=True, help=f"of an edge [{KEY}]")
    add("--size", default="auto", help="auto or WIDTHxHEIGHT")
    add("--steps", type=int, default=20, help="denoising steps; 0 for the model's default")
    add("--images", type=int, default=1, help="pictures in each request")
    add("--patience", type=float, default=600.0, help="seconds after which a client gives up")
    add("--metrics-port", type=int, default=0, include_in_web_ui=False, help="of Prometheus' figures; 0 for none")


@events.init.add_listener  # type: ignore[untyped-decorator]
def _prepare(environment: Any, **_: Any) -> None:
    given = environment.parsed_options
    # Requests in flight at the end would vanish: Locust kills users at once by default.
    environment.stop_timeout = environment.stop_timeout or given.patience
    environment.pictures_exporter = Exporter(given.metrics_port) if given.metrics_port else None


class PicturesUser(User):  # type: ignore[misc]
    """An open-loop source of requests."""

    wait_time = constant(0)

    def on_start(self) -> None:
        """Get ready to send."""
        given = self.environment.parsed_options
        if not self.host:
            raise ValueError("--host: missing; allowed: the address of an edge or a predictor")
        self._dialect = given.dialect
        address = self.host.removeprefix("http://") if self._dialect == GRPC else self.host
        spec = TargetSpec(url=address, dialect=self._dialect, model=given.model)
        self._loop = OpenLoop(
            {"a": sender(spec, given.patience, given.api_key or None)},
            timeout=given.patience,
            ended=self._ended,
            run=secrets.token_hex(4),
        )
        self._start = now()
        self._due = _arrivals(given.rate)
        self._numbers = itertools.count()

    @task  # type: ignore[untyped-decorator]
    def begin(self) -> None:
        """Sleep until the next request is due, and begin it."""
        given, number = self.environment.parsed_options, next(self._numbers)
        self._loop.begin_at(
            Shot(
                index=number,
                at=next(self._due),
                target="a",
                identity=number,
                repeated=False,
                prompt=random.choice(PROMPTS),  # noqa: S311
                seed=secrets.randbelow(2**32),
                steps=given.steps,
                size=given.size,
                images=given.images,
            ),
            self._start,
        )

    def on_stop(self) -> None:
        """Wait for what is in flight."""
        self._loop.wait()

    def _ended(self, _: Shot, attempt: Attempt) -> None:
        fire(self.environment.events, self._dialect, attempt)
        if self.environment.pictures_exporter:
            self.environment.pictures_exporter.add(attempt.sample, self._dialect, self._loop.in_flight)


def _arrivals(rate: float) -> Iterator[float]:
    at = 0.0
    while True:
        at += random.expovariate(rate)
        yield at
