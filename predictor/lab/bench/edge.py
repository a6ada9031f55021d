"""What one edge process costs and how much it answers by itself: its start, its memory, cache hits and refusals.

The edge runs on its own with SQLite and files. A predictor with the model makes one picture, and has gone before the
first hit is counted. Under load the edge has one core and whoever asks has the others; connections are kept alive and
each asks again as soon as it has its answer.
"""

import asyncio
import http.client
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final, Literal

import msgspec

from predictor.clock import now
from predictor.lab.bench.processes import host_memory
from predictor.lab.demo.processes import Running, free_port, running, sdzero

Kind = Literal["hit", "unauthenticated", "wake_refused"]
SETTLED: Final = 10.0  # seconds after which an edge without work counts as idle
STATUS: Final[dict[Kind, int]] = {"hit": 200, "unauthenticated": 401, "wake_refused": 429}
ASKED: Final = {"prompt": "a red circle on a blue background", "size": "64x64", "num_inference_steps": 2, "seed": 1}
PATH: Final = "/v1/images/generations"


class Start(msgspec.Struct, frozen=True, kw_only=True):
    """From just before the process is spawned until /readyz answers 200; the first one makes the database."""

    first: bool
    seconds: float


class Idle(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes that the edge holds ten seconds after a start, nobody having asked for anything."""

    rss_peak: int
    pss: int  # shared pages counted once


class Round(msgspec.Struct, frozen=True, kw_only=True):
    """One stretch of load of one kind."""

    kind: Kind
    connections: int
    requests: int
    seconds: float
    cpu_seconds: float  # of the edge: on a busy machine it has less than its core
    p50: float  # seconds of one request
    p99: float


class Measured(msgspec.Struct, kw_only=True):
    """A file of docs/measurements/edge."""

    command: str
    commit: str
    machine: dict[str, str | int]
    date: str  # ISO 8601, UTC
    figures: dict[str, float]
    starts: list[Start]
    idle: Idle
    rounds: list[Round]


def measure(model: Path, *, rounds: int, seconds: float, connections: int, command: str, commit: str) -> Measured:
    """Run it all, about half a minute besides the rounds.

    Raises:
        RuntimeError: the edge answered with something else than what was measured.
    """
    date = datetime.now(UTC).isoformat(timespec="seconds")
    with tempfile.TemporaryDirectory() as folder:
        data, port, behind = Path(folder), free_port(), free_port()
        starts = []
        for first in (True, False, False):
            with _edge(data, port, behind) as (edge, took):
                starts.append(Start(first=first, seconds=took))
        with _edge(data, port, behind) as (edge, took):
            starts.append(Start(first=False, seconds=took))
            time.sleep(SETTLED)
            peak, pss = host_memory([edge.popen.pid])
            keys = _prepared(data, port, model, behind)
            driven: list[Round] = []
            with _one_core(edge.popen.pid):
                for _ in range(rounds):
                    for kind, key in keys.items():
                        driven.append(asyncio.run(load(edge.popen.pid, port, kind, key, connections, seconds)))
    return Measured(
        command=command,
        commit=commit,
        machine=_machine(),
        date=date,
        figures=figures(starts, driven),
        starts=starts,
        idle=Idle(rss_peak=peak, pss=pss),
        rounds=driven,
    )


async def load(pid: int, port: int, kind: Kind, key: str, connections: int, seconds: float) -> Round:
    """Ask the edge `pid` on so many connections for so long.

    Raises:
        RuntimeError: it answered with something else than what `kind` is answered with.
    """
    # Nobody has this seed's picture, and nobody may wake the predictor for it.
    content = json.dumps(ASKED | {"seed": 3} if kind == "wake_refused" else ASKED).encode()
    head = f"POST {PATH} HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {key}\r\nContent-Type: application/json\r\n"
    request = f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content
    spent, began = _cpu(pid), now()
    asking = (_ask(port, kind, request, began + seconds) for _ in range(connections))
    latencies = [latency for one in await asyncio.gather(*asking) for latency in one]
    cuts = statistics.quantiles(latencies, n=100)
    return Round(
        kind=kind,
        connections=connections,
        requests=len(latencies),
        seconds=now() - began,
        cpu_seconds=_cpu(pid) - spent,
        p50=cuts[49],
        p99=cuts[98],
    )


def figures(starts: list[Start], rounds: list[Round]) -> dict[str, float]:
    """Medians, in seconds and per second, of samples of every kind."""
    found = {
        "first_start": next(start.seconds for start in starts if start.first),
        "start": statistics.median(start.seconds for start in starts if not start.first),
    }
    for kind in STATUS:
        ours = [one for one in rounds if one.kind == kind]
        found[f"{kind}_per_second"] = statistics.median(one.requests / one.seconds for one in ours)
        found[f"{kind}_per_cpu_second"] = statistics.median(one.requests / max(one.cpu_seconds, 0.01) for one in ours)
        found[f"{kind}_p50"] = statistics.median(one.p50 for one in ours)
        found[f"{kind}_p99"] = statistics.median(one.p99 for one in ours)
    return {name: round(value, 5) for name, value in found.items()}


def table(measured: Measured) -> str:
    """What a person reads."""
    found = measured.figures
    peak, share = (size / 2**20 for size in (measured.idle.rss_peak, measured.idle.pss))
    lines = [
        f"start            first {found['first_start']:.2f} s, then {found['start']:.2f} s",
        f"idle             {peak:.0f} MiB at most, {share:.0f} MiB with shared pages counted once",
    ]
    lines += [
        f"{kind:16} {found[f'{kind}_per_second']:.0f} /s, {found[f'{kind}_per_cpu_second']:.0f} per second of "
        f"processor, p50 {1000 * found[f'{kind}_p50']:.1f} ms, p99 {1000 * found[f'{kind}_p99']:.1f} ms"
        for kind in STATUS
    ]
    return "\n".join(lines)


def write(path: Path, measured: Measured) -> None:
    """One key or sample a line, for diffs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(measured), indent=1) + b"\n")


@contextmanager
def _edge(data: Path, port: int, behind: int) -> Iterator[tuple[Running, float]]:
    """A running edge, and the seconds until it was ready."""
    command = ["serve-edge", "--predictor-url", f"http://127.0.0.1:{behind}", "--data", str(data)]
    # Without a pause after which it counts as asleep, whoever may not wake it is refused for a whole hour.
    command += ["--http-port", str(port), "--metrics-port", "0", "--idle-seconds", "0"]
    spawned = now()
    with running("edge", command, port, data / "edge.log") as edge:
        while not _ready(port):
            edge.check()
            time.sleep(0.005)
        yield edge, now() - spawned


def _ready(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5.0)
    with suppress(OSError):
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    return False


def _prepared(data: Path, port: int, model: Path, behind: int) -> dict[Kind, str]:
    """The key of each kind of request; the picture is there, and whoever made it has gone."""
    owner, waker = (_key(data, *limits) for limits in ((), ("--wakes-per-hour", "1")))
    command = ["serve-predictor", "--model", str(model), "--device", "cpu", "--threads", "1"]
    command += ["--http-port", str(behind), "--grpc-port", str(free_port())]
    with running("predictor", command, behind, data / "predictor.log") as predictor:
        predictor.wait_until_ready("/v2/health/ready")
        for key, body in ((owner, ASKED), (waker, ASKED | {"seed": 2})):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60.0)
            connection.request("POST", PATH, json.dumps(body), {"Authorization": f"Bearer {key}"})
            reply = connection.getresponse()
            said = reply.read()
            connection.close()
            if reply.status != 200:
                raise RuntimeError(f"the picture: HTTP {reply.status}: {said[:500]!r}")
    return {"hit": owner, "unauthenticated": "sk-unknown", "wake_refused": waker}


def _key(data: Path, *limits: str) -> str:
    return sdzero("keys", "create", "--data", str(data), "--name", "bench", *limits).strip()


@contextmanager
def _one_core(pid: int) -> Iterator[None]:
    """The process's threads have the last of our cores to themselves, as far as we are concerned."""
    ours = os.sched_getaffinity(0)
    if len(ours) > 1:
        theirs = max(ours)
        for task in Path(f"/proc/{pid}/task").iterdir():
            os.sched_setaffinity(int(task.name), {theirs})
        os.sched_setaffinity(0, ours - {theirs})
    try:
        yield
    finally:
        os.sched_setaffinity(0, ours)


async def _ask(port: int, kind: Kind, request: bytes, until: float) -> list[float]:
    """The seconds of each request on one connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**20)
    expected, latencies = f"HTTP/1.1 {STATUS[kind]} ".encode(), []
    try:
        while (sent := now()) < until:
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
            body = await reader.readexactly(length)
            latencies.append(now() - sent)
            if not head.startswith(expected) or (kind == "hit" and b"x-cache: hit" not in head.lower()):
                raise RuntimeError(f"{kind}: {head.decode('latin-1')}{body[:500]!r}")
    finally:
        writer.close()
    return latencies


def _cpu(pid: int) -> float:
    """Seconds of processor that the process has used, of all its threads (proc(5), stat)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _machine() -> dict[str, str | int]:
    """Versions and cores; no host names, no paths."""
    libraries = {name: version(name) for name in ("uvicorn", "starlette", "sqlalchemy", "msgspec")}
    with suppress(PackageNotFoundError):
        libraries["uvloop"] = version("uvloop")  # uvicorn takes it where it is
    return {**libraries, "python": platform.python_version(), "cpu_count": os.cpu_count() or 0}
