"""Ends the drain of queue-proxy, Knative's sidecar, once its pod is told to go and has nothing left to do.

queue-proxy drains for 30 s (`drainSleepDuration`, knative/serving pkg/queue/sharedmain); nothing configures that, and
the pod keeps its GPU for as long. Nobody outside can shorten it: the kubelet sees the first deletion through, with the
hook that waits for queue-proxy, before it looks at a second one with a shorter grace period (`SyncTerminatingPod` of
Kubernetes 1.34; kubernetes/kubernetes#127339). From inside it goes: a second SIGTERM ends queue-proxy at once
(knative.dev/pkg/signals). This process may send it where the containers of the pod share their processes and are the
same user. Then the hook fails, the kubelet ends this process too, and the pod is gone.

Whoever sent a request at the last moment loses its connection before anything was accepted, and is answered elsewhere.
"""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import structlog

from predictor.asgi.journal import Journal

CONVERGED = 2.0  # seconds of a drain after which neither the activator nor a Service sends to the pod any more
LOOK = 1.0  # seconds between two looks
PORTS = (8012, 8013)  # of queue-proxy in front of HTTP/1 and of gRPC: knative/serving pkg/networking/constants.go
HASH = b"sdzero"
# knative.dev/pkg/network/handlers/drain.go: answered at once, 503 while it drains, never taken for traffic.
PROBE = (
    b"GET / HTTP/1.1\r\nHost: localhost\r\nK-Network-Probe: probe\r\nK-Network-Hash: %b\r\nConnection: close\r\n\r\n"
    % HASH
)
NAME = "queue"  # of its program, in Knative's images and in those of others
log = structlog.get_logger("sdzero.server")


class Quiet:
    """How long a drain has had nothing to do; pure."""

    def __init__(self) -> None:
        self._since: float | None = None

    def lasts(self, now: float, *, draining: bool, busy: bool) -> bool:
        """Whether the drain may end: for `CONVERGED` seconds each look has found it going on, and no work."""
        if not draining or busy:
            self._since = None
            return False
        if self._since is None:
            self._since = now
        return now - self._since >= CONVERGED


@asynccontextmanager
async def ending(journal: Journal) -> AsyncIterator[None]:
    """`end_drain` beside the block."""
    task = asyncio.create_task(end_drain(journal))
    yield
    task.cancel()


async def end_drain(
    journal: Journal,
    ports: Sequence[int] = PORTS,
    name: str = NAME,
    look: float = LOOK,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Look at queue-proxy until its drain has been ended, or it is clear that this process cannot end it.

    Args:
        journal: knows the requests of this process.
        ports: where queue-proxy may listen.
        name: of its process.
        look: seconds between two looks.
        clock: seconds.
    """
    while (port := await _proxy(ports)) is None:  # noqa: ASYNC110  # nothing tells when
        await asyncio.sleep(look)
    if _process(name) is None:
        log.warning(
            "drains are not ended",
            said=f"no process {name!r} of user {os.getuid()} is seen: set shareProcessNamespace, and one user for both",
        )
        return
    quiet, begun = Quiet(), journal.begun
    while not quiet.lasts(
        clock(), draining=await _drains(port) is True, busy=bool(journal.open) or journal.begun > begun
    ):
        begun = journal.begun
        await asyncio.sleep(look)
    if (process := _process(name)) is None:
        return  # it has ended by itself
    try:
        os.kill(process, signal.SIGTERM)
    except ProcessLookupError:
        return
    except PermissionError as error:
        log.warning("drains are not ended", said=f"queue-proxy may not be signalled: {error}")
        return
    log.info("drain ended")


async def _proxy(ports: Sequence[int]) -> int | None:
    """The port at which queue-proxy says that it serves; whoever says less may be somebody else."""
    for port in ports:
        if await _drains(port) is False:
            return port
    return None


async def _drains(port: int) -> bool | None:
    """Whether queue-proxy drains; None if nobody answers, or not as it does."""
    try:
        async with asyncio.timeout(LOOK):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                writer.write(PROBE)
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
            finally:
                writer.close()
    except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        return None
    if head.startswith(b"http/1.1 503 "):
        return True
    known = head.startswith(b"http/1.1 200 ") and b"\r\nk-network-hash: %b\r\n" % HASH in head
    return False if known else None


def _process(name: str) -> int | None:
    """The one process of this name and this process's user, as far as it may be seen: proc(5), /proc/PID/status."""
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdecimal():
            with suppress(OSError):  # it has just ended
                status = dict(line.split(":\t", 1) for line in (process / "status").read_text().splitlines())
                if status["Name"] == name and int(status["Uid"].split()[0]) == os.getuid():
                    found.append(int(process.name))
    return found[0] if len(found) == 1 else None
