"""Processes that do one thing, tell what they are at, and whose last words are kept if they fail."""

import os
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping
from types import TracebackType

STAGE = "\x1e"  # begins a line that a child means for its parent; no log has it (ASCII: record separator)
LAST_WORDS = 40  # lines


class BakeError(RuntimeError):
    """A package could not be made or is wrong; the message names it and says why."""


class ChildFailed(RuntimeError):
    """A process ended with an error; the message says how, and ends with the end of its log."""


class Children:
    """Running processes; those that are left when the block ends are killed, with whatever they started."""

    def __init__(self) -> None:
        self._running: set[subprocess.Popen[str]] = set()
        self._lock = threading.Lock()
        self.closed = False  # from then on all ends are our own doing

    def __enter__(self) -> "Children":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            self.closed = True
            for process in self._running:
                os.killpg(process.pid, signal.SIGKILL)

    def run(
        self, module: str, arguments: list[str], environ: Mapping[str, str], on_stage: Callable[[str], None]
    ) -> None:
        """`python -m module arguments` to its end; `on_stage` gets what follows `STAGE`. Raises ChildFailed."""
        with self._lock:
            if self.closed:
                raise ChildFailed("not started")
            # A session of its own, so that compilers which it started can be ended with it.
            process = subprocess.Popen(  # noqa: S603
                [sys.executable, "-m", module, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                env=dict(environ),
                start_new_session=True,
            )
            self._running.add(process)
        log: deque[str] = deque(maxlen=LAST_WORDS)
        assert process.stdout is not None
        with process.stdout:
            for line in process.stdout:
                if line.startswith(STAGE):
                    on_stage(line.removeprefix(STAGE).rstrip("\n"))
                else:
                    log.append(line)
        # Until its end is collected its number is its own; only so long may it be killed by that number.
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        with self._lock:
            self._running.discard(process)
            process.wait()
        if process.returncode:
            how = f"status {process.returncode}"
            if process.returncode < 0:
                how = f"signal {-process.returncode} ({signal.strsignal(-process.returncode)})"
            raise ChildFailed(f"ended with {how}; its log ends:\n{''.join(log) or '(nothing)'}")
