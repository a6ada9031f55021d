"""A Redis server of the tests' own."""

import signal
import socket
import subprocess
from pathlib import Path

from tests.parts.part import program
from tests.processes import free_port, wait_until

HOW = "apt install redis-server, or any of Redis's packages for your system"


class RedisServer:
    """A server that keeps everything in memory, on a free port, which it keeps.

    Raises:
        Missing: Redis is not installed.
    """

    def __init__(self, folder: Path) -> None:
        self._server = program("redis-server", HOW, "/usr/sbin", "/usr/local/bin")
        self._folder = folder
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"redis://127.0.0.1:{self._port}/0"
        self.start()

    def start(self) -> None:
        """Start it, where it is not running, empty; returns when it answers."""
        if self._process is not None:
            return
        command = [self._server, "--port", str(self._port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        with (self._folder / "redis.log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self._folder)
        wait_until(self._ready)

    def stop(self) -> None:
        """Stop it as a restart would: what it held is lost."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Kill it. `start` brings it back, empty."""
        self._end(signal.SIGKILL)

    def hang(self) -> None:
        """Let it take connections and answer nothing, until `wake`."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def wake(self) -> None:
        """Let it answer again."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def ask(self, *words: str) -> str:
        """The answer to one command, as Redis's protocol writes it; for commands without spaces in their words."""
        with socket.create_connection(("127.0.0.1", self._port), 5) as connection, connection.makefile("rwb") as file:
            file.write(" ".join(words).encode() + b"\r\nQUIT\r\n")
            file.flush()
            return file.read().removesuffix(b"+OK\r\n").decode()

    def _end(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(30)
            self._process = None

    def _ready(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self._folder / "redis.log").read_text(encoding="utf-8")
        try:
            return self.ask("PING") == "+PONG\r\n"
        except OSError:
            return False
