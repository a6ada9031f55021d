"""A real edge process and its clients, as tests see them."""

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from predictor.settings import PREFIX
from tests.processes import free_port, wait_until

ROOT = Path(__file__).parents[2]


@dataclass
class Edge:
    """An edge in front of `predictor_url`, with its data in a folder that outlives the process."""

    folder: Path
    predictor_url: str
    settings: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    http_port: int = 0
    metrics_port: int = 0
    popen: subprocess.Popen[bytes] | None = None

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.http_port = self.http_port or free_port()
        self.metrics_port = self.metrics_port or free_port()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http_port}"

    @property
    def log(self) -> str:
        return (self.folder / "output").read_text()

    def start(self, ready: bool = True) -> "Edge":
        """Start it, or start it again on the same folder and ports."""
        fixed = {
            "predictor_url": self.predictor_url,
            "http_port": self.http_port,
            "metrics_port": self.metrics_port,
            "data": self.folder / "data",
        }
        command = [sys.executable, "-m", "predictor.cli", "serve-edge"]
        for name, value in (fixed | self.settings).items():
            command += [f"--{name.replace('_', '-')}", str(value)]
        environ = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
        with (self.folder / "output").open("ab") as sink:
            self.popen = subprocess.Popen(
                command, stdout=sink, stderr=subprocess.STDOUT, env=environ | self.environment, cwd=ROOT
            )
        if ready:
            wait_until(self.is_ready, 60.0)
        return self

    def is_ready(self) -> bool:
        assert self.popen is not None
        assert self.popen.poll() is None, self.log
        try:
            return httpx.get(f"{self.url}/readyz").status_code == 200
        except httpx.TransportError:
            return False

    def stop(self) -> int:
        """SIGTERM, as Kubernetes would; returns the exit status."""
        assert self.popen is not None
        self.popen.terminate()
        return self.popen.wait(60)

    def kill(self) -> None:
        """SIGKILL: nothing is tidied up."""
        if self.popen is not None:
            self.popen.kill()
            self.popen.wait()

    def key(self, *arguments: str) -> str:
        """The secret of a new key."""
        command = [sys.executable, "-m", "predictor.cli", "keys", "create", "--data", str(self.folder / "data")]
        if url := self.settings.get("database_url"):
            command += ["--database-url", str(url)]
        ended = subprocess.run([*command, "--json", *arguments], capture_output=True, text=True, cwd=ROOT, check=True)
        import json

        return str(json.loads(ended.stdout)["secret"])

    def client(self, key: str | None = None, **more: Any) -> httpx.Client:
        """A client with that key."""
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        return httpx.Client(base_url=self.url, headers=headers, timeout=60.0, **more)

    def metric(self, sample: str) -> float:
        """One sample of `/metrics`, named with its labels as it stands there."""
        for line in httpx.get(f"http://127.0.0.1:{self.metrics_port}/metrics").text.splitlines():
            if line.startswith(f"{sample} "):
                return float(line.rpartition(" ")[2])
        raise AssertionError(f"no sample {sample}")


def rows(edge: Edge, statement: str) -> list[tuple[Any, ...]]:
    """The rows of one statement in the edge's own database."""
    with closing(sqlite3.connect(edge.folder / "data" / "sdzero.db")) as connection, connection:
        return connection.execute(statement).fetchall()
