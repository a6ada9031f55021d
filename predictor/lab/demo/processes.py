"""The real processes of a deployment, on one machine."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx

from predictor.settings import PREFIX


@dataclass(frozen=True)
class Running:
    """A process that serves HTTP; its output goes to `log`."""

    what: str
    popen: "subprocess.Popen[bytes]"
    url: str
    log: Path

    def check(self) -> None:
        """Leave with its last words if it has ended."""
        if self.popen.poll() is not None:
            sys.exit(f"the {self.what} ended with status {self.popen.returncode}:\n{self.log.read_text()[-2000:]}")

    def wait_until_ready(self, path: str) -> None:
        """Poll `path`; for the edge, or a predictor that is wanted already."""
        while True:
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(self.url + path).status_code == 200:
                    return
            self.check()
            time.sleep(0.05)


def sdzero(*arguments: str) -> str:
    """What a command prints; leaves with its own words if it fails."""
    command = [sys.executable, "-m", "predictor.cli", *arguments]
    ended = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=_environment(), check=False)  # noqa: S603
    if ended.returncode:
        sys.exit(ended.returncode)
    return ended.stdout


@contextlib.contextmanager
def running(what: str, command: list[str], port: int, log: Path) -> Iterator[Running]:
    """`sdzero COMMAND…`, told to stop, as Kubernetes would, on the way out."""
    with log.open("wb") as sink:
        popen = subprocess.Popen(  # noqa: S603
            [sys.executable, "-m", "predictor.cli", *command],
            stdout=sink,
            stderr=subprocess.STDOUT,
            env=_environment(),
            start_new_session=True,
        )
    try:
        yield Running(what, popen, f"http://127.0.0.1:{port}", log)
    finally:
        popen.send_signal(signal.SIGTERM)
        popen.wait()


def _environment() -> dict[str, str]:
    """Ours without its settings, which are meant for one process and not for all of them."""
    return {key: value for key, value in os.environ.items() if not key.startswith(PREFIX)}


def free_port() -> int:
    """A TCP port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
