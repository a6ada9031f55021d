"""The open loop: a greenlet for each request, begun when it is due, whatever has been answered by then.

gevent is imported by whoever imports this; Locust's patches have to come first.
"""

import csv
import errno
import http.client
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO, Any, Protocol

import gevent
from gevent.pool import Group

from loadtest.answers import Answer, Unreadable, digest
from loadtest.asking import Attempt, Times, sample
from loadtest.job import PICTURES, SAMPLES
from loadtest.plan import Shot
from loadtest.samples import Sample, row
from predictor.clock import now

OURS = (errno.EMFILE, errno.ENFILE, errno.EADDRNOTAVAIL, errno.ENOBUFS, errno.ENOMEM)
MOST_PICTURES = 5000  # of a run whose service never draws the same bytes twice


class Exhausted(Exception):
    """This machine has no more sockets or ports: what follows would look like losses, and be none."""


class Sender(Protocol):
    """`HttpSender` or `GrpcSender`."""

    def send(self, shot: Shot, request_id: str, times: Times) -> Answer:
        """Ask, and note times on the way; raises where there is no answer."""
        ...


class Record:
    """Writes every sample as it comes, and each distinct file of the pictures that are asked for repeatedly."""

    def __init__(self, folder: Path) -> None:
        self._pictures = folder / PICTURES
        self._pictures.mkdir(parents=True, exist_ok=True)
        self._kept: set[str] = set()
        # A line at a time: a run that is cut off leaves what it had.
        self._file: IO[str] = (folder / SAMPLES).open("w", newline="", buffering=1, encoding="utf-8")
        self._rows = csv.writer(self._file)
        self._rows.writerow(Sample.__struct_fields__)

    def add(self, attempt: Attempt, *, repeated: bool) -> None:
        """One attempt that ended."""
        self._rows.writerow(row(attempt.sample))
        if not repeated:
            return
        for file in attempt.files:
            name = digest(file)
            if name not in self._kept and len(self._kept) < MOST_PICTURES:
                self._kept.add(name)
                (self._pictures / name).write_bytes(file)

    def close(self) -> None:
        """Nothing comes any more."""
        self._file.close()


class OpenLoop:
    """Drives a schedule.

    Args:
        senders: by target.
        timeout: seconds after which a client gives up an attempt.
        retries: attempts after the first, of what was not answered.
        backoff: seconds before each.
        ended: is told of every attempt.
        cycle: of the run.
        run: a word that makes request ids of this run different from all others'.
    """

    def __init__(
        self,
        senders: dict[str, Sender],
        *,
        timeout: float,
        retries: int = 0,
        backoff: float = 1.0,
        ended: Callable[[Shot, Attempt], None],
        cycle: int = 0,
        run: str = "run",
    ) -> None:
        self._senders = senders
        self._timeout, self._retries, self._backoff = timeout, retries, backoff
        self._ended = ended
        self._cycle, self._run = cycle, run
        self._open = Group()
        self._exhausted: OSError | None = None

    def drive(self, shots: Iterable[Shot], start: float) -> None:
        """Begin each when it is due and wait until the last has ended; `start` is on `predictor.clock`.

        Raises:
            Exhausted: requests were not sent for want of sockets.
        """
        for shot in shots:
            self.begin_at(shot, start)
            if self._exhausted:
                break
        self.wait()
        if self._exhausted:
            raise Exhausted(f"{self._exhausted}; raise `ulimit -n` or lower the rate")

    def begin_at(self, shot: Shot, start: float) -> None:
        """Sleep until it is due, then begin it."""
        # Also when it is late: the others' answers must be read in between.
        gevent.sleep(max(0.0, start + shot.at - now()))
        self._open.spawn(self._request, shot, start)

    def wait(self, seconds: float | None = None) -> None:
        """Until all have ended, or for so long."""
        self._open.join(seconds)

    @property
    def in_flight(self) -> int:
        """How many have begun and not ended."""
        return len(self._open)

    def ask(self, shot: Shot, start: float, attempt: int = 0) -> Attempt:
        """One attempt, now."""
        times = Times(sent=now())
        came: Answer | BaseException
        limit = gevent.Timeout(self._timeout)
        limit.start()
        try:
            request_id = f"{self._run}-{self._cycle}-{shot.index}-{attempt}"
            came = self._senders[shot.target].send(shot, request_id, times)
        except gevent.Timeout as gave_up:
            if gave_up is not limit:
                raise
            came = TimeoutError(f"gave up after {self._timeout:g} s")
        except (OSError, http.client.HTTPException, Unreadable) as error:
            if isinstance(error, OSError) and error.errno in OURS:
                self._exhausted = error
            came = error
        finally:
            limit.close()
        return sample(shot, cycle=self._cycle, attempt=attempt, start=start, times=times, finished=now(), came=came)

    def _request(self, shot: Shot, start: float) -> None:
        for number in range(self._retries + 1):
            attempt = self.ask(shot, start, number)
            self._ended(shot, attempt)
            if not again(attempt.sample):
                return
            if number < self._retries:
                gevent.sleep(self._backoff)


def again(sample: Sample) -> bool:
    """Whether an impatient client would ask again: it has no answer, or one that says later."""
    return sample.outcome in ("timeout", "lost", "failed") or (
        sample.outcome == "refused" and sample.status in (429, 503)
    )


def fire(events: Any, dialect: str, attempt: Attempt) -> None:
    """Tell Locust, whose page and statistics then count from the intended start as well."""
    sample = attempt.sample
    bad = sample.outcome not in ("ok", "refused")
    events.request.fire(
        request_type=dialect,
        name={True: "cold", False: "warm", None: "request"}[sample.cold] if not bad else "request",
        response_time=1000 * sample.latency,
        response_length=sample.bytes,
        exception=RuntimeError(f"{sample.outcome}: {sample.error}") if sample.outcome != "ok" else None,
        context={},
    )
