"""A real server process with the fake engine, on free ports."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.processes import free_port, wait_until

HERE = Path(__file__).parent
PROMPT = "a red circle on a blue background"


@dataclass
class Server:
    popen: subprocess.Popen[bytes]
    http_port: int
    grpc_port: int
    folder: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http_port}"

    @property
    def infer(self) -> str:
        return f"{self.url}/v2/models/sd/infer"

    @property
    def grpc(self) -> str:
        return f"127.0.0.1:{self.grpc_port}"

    @property
    def engine_notes(self) -> list[str]:
        """What the fake engine has written down: start, generate ID, cancel ID, told to end."""
        notes = self.folder / "engine"
        return notes.read_text().splitlines() if notes.exists() else []

    @property
    def gate(self) -> Path:
        return self.folder / "gate"

    @property
    def log(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / "stdout").read_text().splitlines()]

    @property
    def stderr(self) -> str:
        return (self.folder / "stderr").read_text()

    def engine_pid(self) -> int:
        children = Path(f"/proc/{self.popen.pid}/task/{self.popen.pid}/children").read_text().split()
        assert len(children) == 1
        return int(children[0])

    def engine_runs(self) -> bool:
        return Path(f"/proc/{self.popen.pid}/task/{self.popen.pid}/children").read_text() != ""

    def sleeps(self) -> bool:
        return self.metric("sdzero_asleep") == 1

    def is_ready(self) -> bool:
        assert self.popen.poll() is None, self.stderr
        try:
            return httpx.get(f"{self.url}/v2/models/sd/ready").status_code == 200
        except httpx.TransportError:
            return False

    def has_port(self) -> bool:
        assert self.popen.poll() is None, self.stderr
        try:
            return httpx.get(f"{self.url}/v2/health/live").status_code == 200
        except httpx.TransportError:
            return False

    def metric(self, sample: str) -> float:
        for line in httpx.get(f"{self.url}/metrics").text.splitlines():
            if line.startswith(f"{sample} "):
                return float(line.rpartition(" ")[2])
        raise AssertionError(f"no sample {sample}")


def v2(prompt: object = PROMPT, **parameters: object) -> dict[str, Any]:
    """An infer request in JSON."""
    tensor = {"name": "prompt", "shape": [1], "datatype": "BYTES", "data": [prompt]}
    return {"inputs": [tensor], "parameters": parameters}


@pytest.fixture(scope="session")
def until() -> Callable[..., None]:
    return wait_until


@pytest.fixture(scope="session")
def infer_body() -> Callable[..., dict[str, Any]]:
    return v2


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Server]]:
    """Starts servers, with settings as keywords and the fake engine's behaviour as `engine`; ends them afterwards."""
    started: list[Server] = []

    def begin(engine: dict[str, str] | None = None, wait: bool = True, **settings: object) -> Server:
        folder = tmp_path_factory.mktemp("server")
        settings = {"http_port": free_port(), "grpc_port": free_port(), "grace_seconds": 8} | settings
        environment = os.environ | {"FAKE_LOG": str(folder / "engine"), "OMP_NUM_THREADS": "1"}
        environment |= {name: value.format(folder=folder) for name, value in (engine or {}).items()}
        with (folder / "stdout").open("wb") as stdout, (folder / "stderr").open("wb") as stderr:
            popen = subprocess.Popen(
                [sys.executable, HERE / "run_server.py", json.dumps(settings)],
                stdout=stdout,
                stderr=stderr,
                env=environment,
            )
        server = Server(popen, int(str(settings["http_port"])), int(str(settings["grpc_port"])), folder)
        started.append(server)
        if wait:
            wait_until(server.is_ready)
        return server

    yield begin
    for server in started:
        server.popen.kill()
        server.popen.wait()


@pytest.fixture(scope="module")
def server(start: Callable[..., Server]) -> Server:
    """One server for all tests of a module that do not hurt it."""
    return start()


@pytest.fixture(scope="module")
def http() -> Iterator[httpx.Client]:
    with httpx.Client(timeout=20) as client:
        yield client
