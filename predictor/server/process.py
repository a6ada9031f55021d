"""The engine as a child process. Imports nothing slow: the engine must be running before the server imports kserve."""

import contextlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from predictor import clock
from predictor.settings import EngineSettings

ENGINE = (sys.executable, "-m", "predictor.engine")


@dataclass(frozen=True)
class EngineProcess:
    """One life of the engine: its process, the ZeroMQ address where it expects the server, and when it was started."""

    popen: subprocess.Popen[bytes]
    address: str
    started: float  # seconds since boot

    def stop(self, patience: float) -> None:
        """Ask it to end, insist after `patience` seconds, and remove its socket's folder."""
        with contextlib.suppress(ProcessLookupError):
            self.popen.terminate()
        try:
            self.popen.wait(patience)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.popen.wait()
        self.forget()

    def forget(self) -> None:
        """Remove the socket's folder of an engine that has ended."""
        shutil.rmtree(Path(self.address.removeprefix("ipc://")).parent, ignore_errors=True)


def spawn(settings: EngineSettings, command: Sequence[str] = ENGINE) -> EngineProcess:
    """Start an engine. Nobody listens at its address yet; ZeroMQ holds what it sends until `EngineLink` does.

    Call it on the main thread: the engine dies with the thread that started it (PR_SET_PDEATHSIG, prctl(2)).
    """
    address = f"ipc://{tempfile.mkdtemp(prefix='sdzero-')}/engine"
    popen = subprocess.Popen(  # noqa: S603
        [*command, "--address", address, "--settings", msgspec.json.encode(settings).decode()],
        stdin=subprocess.DEVNULL,
        # A group of its own: Ctrl-C in a terminal reaches the server alone, which lets running requests finish.
        process_group=0,
    )
    return EngineProcess(popen, address, clock.now())
