"""The golden server as a process, and the suite run against it as a user would."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from loadtest import samples
from loadtest.samples import Sample

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class GoldenServer:
    url: str

    def truths(self) -> dict[tuple[int, int, int], dict[str, Any]]:
        """What it did, by cycle, request and attempt."""
        found = {}
        for truth in httpx.get(f"{self.url}/truth").json():
            _, cycle, index, attempt = truth["id"].rsplit("-", 3)
            name = (int(cycle), int(index), int(attempt))
            assert name not in found, f"{name} came twice: the generator has asked again behind our back"
            found[name] = truth
        return found


@dataclass(frozen=True)
class Ran:
    """A run of `sdzero loadtest` that has ended."""

    status: int
    out: Path
    printed: str

    @property
    def summary(self) -> dict[str, Any]:
        return json.loads((self.out / "summary.json").read_text())

    @property
    def samples(self) -> list[Sample]:
        return samples.read(self.out / "samples.csv")

    def figure(self, name: str) -> float:
        return self.summary["figures"][name]["value"]


@pytest.fixture
def golden() -> Iterator[Callable[..., GoldenServer]]:
    """Starts golden servers that follow a script."""
    started: list[subprocess.Popen[str]] = []

    def begin(**script: Any) -> GoldenServer:
        command = [sys.executable, "-m", "loadtest.golden", json.dumps(script)]
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT))
        assert started[-1].stdout is not None
        return GoldenServer(f"http://127.0.0.1:{int(started[-1].stdout.readline())}")

    yield begin
    for server in started:
        server.kill()
        server.communicate()


@pytest.fixture
def loadtest(tmp_path: Path) -> Callable[..., Ran]:
    """Runs `sdzero loadtest`, in a process of its own as it always is."""

    def run(scenario: str, *arguments: str, status: int = 0) -> Ran:
        out = tmp_path / "run"
        command = [sys.executable, "-m", "loadtest.cli", scenario, "--out", str(out), *arguments]
        ended = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=240)
        assert ended.returncode == status, ended.stdout + ended.stderr
        return Ran(ended.returncode, out, ended.stdout + ended.stderr)

    return run


@pytest.fixture
def sample() -> Callable[..., Sample]:
    """A sample of a request that went well, with changes."""

    def make(index: int = 0, **changes: Any) -> Sample:
        at = changes.pop("intended", float(index))
        seconds = changes.pop("latency", 1.0)
        fixed = {"identity": index, "sent": at, "connected": at, "finished": at + seconds, "outcome": "ok"}
        return Sample(**{"index": index, "intended": at, **fixed, **changes})

    return make
