"""A server under measurement: a fresh process, its port, and requests to it, on the pod's one clock."""

import http.client
import os
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import IO, Final

import msgspec
from PIL import Image, ImageStat

from predictor.clock import now, process_start
from predictor.core.timeline import Mark
from predictor.lab.bench import processes
from predictor.lab.bench.results import Arrival, ColdStart, Workload
from predictor.lab.bench.sides import Side

_TIMEOUT: Final = 600.0  # seconds; a longer start or answer is a failed benchmark
_POLL: Final = 0.02


class _Timeline(msgspec.Struct):
    marks: list[Mark]


@dataclass(frozen=True)
class Running:
    """A started process. `spawned` is in seconds since boot, taken just before the fork."""

    side: Side
    port: int
    process: subprocess.Popen[bytes]
    spawned: float
    log: IO[bytes]


@contextmanager
def started(side: Side, model: Path, device: str) -> Iterator[Running]:
    """Spawn `side`; on leaving, stop it and whatever it started."""
    port, spare_port = _free_ports()
    command = side.command(model, device, port, spare_port)
    with tempfile.TemporaryFile() as log:
        spawned = now()
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)  # noqa: S603
        try:
            yield Running(side, port, process, spawned, log)
        finally:
            _stop(process)


def first_image(running: Running, workload: Workload, trial: int, seed: int) -> ColdStart:
    """Ask until there is a picture: a closed port and `503 not ready` are asked again, every 20 ms.

    Raises:
        RuntimeError: the process ended, refused for good, or took longer than ten minutes.
    """
    kernel_start = process_start(running.process.pid)
    port_open = None
    while True:
        connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=_TIMEOUT)
        try:
            connection.connect()
            port_open = port_open or now()
            status, headers, body = _ask(connection, running.side, workload, seed, 1)
        except ConnectionRefusedError:
            status = 503
        except (OSError, http.client.HTTPException) as error:
            raise RuntimeError(f"{running.side.name}: first request: {error!r}\n{_last_words(running)}") from None
        finally:
            connection.close()
        finished = now()
        if status == 200:
            break
        if status != 503:
            raise RuntimeError(f"{running.side.name}: first request: HTTP {status}: {body[:500]!r}")
        if running.process.poll() is not None or finished - running.spawned > _TIMEOUT:
            raise RuntimeError(f"{running.side.name}: no picture from this process\n{_last_words(running)}")
        time.sleep(_POLL)
    check_pictures(running.side.pictures(body), workload, 1)
    marks = _marks(running)
    return ColdStart(
        side=running.side.name,
        trial=trial,
        kernel_start=kernel_start - running.spawned,
        port_open=(port_open or finished) - running.spawned,
        first_image=finished - running.spawned,
        server_timing=headers.get("Server-Timing", ""),
        marks=[msgspec.structs.replace(mark, at=mark.at - running.spawned) for mark in marks],
    )


def request(running: Running, workload: Workload, seed: int, images: int) -> float:
    """Seconds of one request, connection and last byte included; the pictures are checked afterwards.

    Raises:
        RuntimeError: any answer but pictures.
    """
    start = now()
    try:
        status, body = _fresh(running, workload, seed, images)
    except (OSError, http.client.HTTPException) as error:
        raise RuntimeError(f"{running.side.name}: {error!r}\n{_last_words(running)}") from None
    seconds = now() - start
    if status != 200:
        raise RuntimeError(f"{running.side.name}: HTTP {status}: {body[:500]!r}\n{_last_words(running)}")
    check_pictures(running.side.pictures(body), workload, images)
    return seconds


def drive(running: Running, workload: Workload, schedule: Sequence[float], first_seed: int) -> list[Arrival]:
    """Send one request at each moment of `schedule`, whatever has been answered by then; status 0 is a lost one."""
    arrivals: list[Arrival | None] = [None] * len(schedule)
    # Threads exist before the run starts, so that starting them delays nobody.
    start = now() + 0.1 + 0.002 * len(schedule)

    def send(index: int, intended: float) -> None:
        time.sleep(max(0.0, start + intended - now()))
        sent = now()
        try:
            status, _ = _fresh(running, workload, first_seed + index, 1)
        except (OSError, http.client.HTTPException):
            status = 0
        arrivals[index] = Arrival(intended, sent - start, now() - start, status)

    threads = [threading.Thread(target=send, args=pair) for pair in enumerate(schedule)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [arrival for arrival in arrivals if arrival is not None]


def check_pictures(pictures: Sequence[bytes], workload: Workload, images: int) -> None:
    """Raise RuntimeError unless these are `images` PNG files of the right size with something in them."""
    if len(pictures) != images:
        raise RuntimeError(f"got {len(pictures)} pictures; asked for {images}")
    for file in pictures:
        with Image.open(BytesIO(file), formats=["PNG"]) as picture:
            if picture.size != (workload.width, workload.height):
                raise RuntimeError(f"got {picture.size} pixels; asked for {(workload.width, workload.height)}")
            if max(ImageStat.Stat(picture.convert("L")).stddev) < 1:
                raise RuntimeError("got an empty picture: activations are not finite, perhaps")


def _marks(running: Running) -> list[Mark]:
    """The marks that the server has of its start; none where it has no timeline."""
    if running.side.timeline is None:
        return []
    connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=_TIMEOUT)
    try:
        connection.request("GET", running.side.timeline)
        answer = connection.getresponse()
        body = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"{running.side.name}: {running.side.timeline}: HTTP {answer.status}: {body[:500]!r}")
        return msgspec.json.decode(body, type=_Timeline).marks
    except (OSError, http.client.HTTPException, msgspec.DecodeError) as error:
        raise RuntimeError(f"{running.side.name}: {running.side.timeline}: {error!r}") from None
    finally:
        connection.close()


def _fresh(running: Running, workload: Workload, seed: int, images: int) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=_TIMEOUT)
    try:
        status, _, body = _ask(connection, running.side, workload, seed, images)
        return status, body
    finally:
        connection.close()


def _ask(
    connection: http.client.HTTPConnection, side: Side, workload: Workload, seed: int, images: int
) -> tuple[int, http.client.HTTPMessage, bytes]:
    body = side.body(workload, seed, images)
    connection.request("POST", side.path, body, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    return answer.status, answer.headers, answer.read()


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        with suppress(subprocess.TimeoutExpired):
            process.wait(30)
    finally:
        # None of its children may keep the GPU, or pages of a file, while the next trial starts.
        while left := processes.members(process.pid):
            for pid in left:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(_POLL)
        process.wait()


def _last_words(running: Running) -> str:
    running.log.seek(0)
    return running.log.read()[-2000:].decode(errors="replace")


def _free_ports() -> tuple[int, int]:
    with socket.socket() as first, socket.socket() as second:
        first.bind(("127.0.0.1", 0))
        second.bind(("127.0.0.1", 0))
        return first.getsockname()[1], second.getsockname()[1]
