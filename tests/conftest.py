"""The real predictor, server and engine, with the demo model, as the processes that a pod runs."""

import base64
import contextlib
import functools
import io
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from predictor.settings import PREFIX
from tests.edge.running import Edge
from tests.processes import free_port, wait_until

ROOT = Path(__file__).parents[1]
MODEL = ROOT / "predictor" / "models" / "shapes"
NAME = "shapes"
STARTING = 120.0  # seconds; five are usual, but the machine may be busy


@dataclass(frozen=True)
class Predictor:
    """A running predictor as its clients and its operator see it."""

    popen: subprocess.Popen[bytes]
    http_port: int
    grpc_port: int
    output: Path
    any_size: bool  # whether it draws other sizes than those that it was compiled for

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http_port}"

    @property
    def model_url(self) -> str:
        return f"{self.url}/v2/models/{NAME}"

    def engine_pid(self) -> int:
        """The server's only child."""
        (child,) = Path(f"/proc/{self.popen.pid}/task/{self.popen.pid}/children").read_text().split()
        return int(child)

    def is_ready(self) -> bool:
        """Whether readiness is true now; fails when the process has ended."""
        assert self.popen.poll() is None, self.output.read_text()
        try:
            return httpx.get(f"{self.url}/v2/health/ready").status_code == 200
        except httpx.TransportError:
            return False

    def wait_until_ready(self) -> None:
        """Poll readiness."""
        wait_until(self.is_ready, STARTING)

    def infer(self, prompt: str, timeout: float = 60.0, **parameters: object) -> httpx.Response:
        """One v2 request in JSON."""
        tensor = {"name": "prompt", "shape": [1], "datatype": "BYTES", "data": [prompt]}
        body = {"inputs": [tensor], "parameters": parameters}
        return httpx.post(f"{self.model_url}/infer", json=body, timeout=timeout)

    def pictures(self, prompt: str, **parameters: object) -> list[np.ndarray]:
        """The encoded pictures of one v2 request, decoded: uint8 [height, width, 3] each."""
        reply = self.infer(prompt, **parameters)
        assert reply.status_code == 200, reply.text
        (image,) = [output for output in reply.json()["outputs"] if output["name"] == "image"]
        return [pixels(text) for text in image["data"]]

    def picture(self, prompt: str, **parameters: object) -> np.ndarray:
        """The only picture of one v2 request."""
        (picture,) = self.pictures(prompt, **parameters)
        return picture

    def metric(self, sample: str) -> float:
        """One sample of `/metrics`, named with its labels as it stands there."""
        for line in httpx.get(f"{self.url}/metrics").text.splitlines():
            if line.startswith(f"{sample} "):
                return float(line.rpartition(" ")[2])
        raise AssertionError(f"no sample {sample}")

    def shared_steps(self) -> float:
        """How many denoising steps so far were shared by more than one picture."""
        return self.metric("sdzero_batch_rows_count") - self.metric('sdzero_batch_rows_bucket{le="1.0"}')


def pixels(base64_png: str) -> np.ndarray:
    """Base64 of a PNG file → uint8 [height, width, 3]."""
    with Image.open(io.BytesIO(base64.b64decode(base64_png))) as picture:
        assert picture.format == "PNG"
        return np.asarray(picture.convert("RGB"))


def clean_environment() -> dict[str, str]:
    """This environment without settings; one thread per library, for idle ones of several processes would spin."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    return environ | {"OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="session")
def decoded() -> Callable[[str], np.ndarray]:
    return pixels


@pytest.fixture(scope="session")
def eventually() -> Callable[..., None]:
    return functools.partial(wait_until, seconds=30.0)


@pytest.fixture(scope="session")
def demo_model() -> Path:
    return MODEL


@pytest.fixture(scope="session")
def sdzero() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs the command line to its end, from the root of the repository."""

    def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "predictor.cli", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, env=clean_environment(), cwd=ROOT, timeout=600)

    return run


@contextlib.contextmanager
def predictors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Predictor]]:
    """Starts predictors, with further flags as keywords; ends them all."""
    started: list[Predictor] = []

    def begin(model: Path | None = MODEL, ready: bool = True, **flags: Any) -> Predictor:
        # On the CPU with one thread a picture is the same to the bit each time.
        fixed = {"model_name": NAME, "device": "cpu", "threads": 1} | ({"model": model} if model else {})
        flags = fixed | {"http_port": free_port(), "grpc_port": free_port()} | flags
        command: list[str] = [sys.executable, "-m", "predictor.cli", "serve-predictor"]
        for name, value in flags.items():
            command += [f"--{name.replace('_', '-')}", str(value)]
        output = tmp_path_factory.mktemp("predictor") / "output"
        with output.open("wb") as sink:
            popen = subprocess.Popen(command, stdout=sink, stderr=subprocess.STDOUT, env=clean_environment(), cwd=ROOT)
        predictor = Predictor(popen, flags["http_port"], flags["grpc_port"], output, any_size="bundle" not in flags)
        started.append(predictor)
        if ready:
            predictor.wait_until_ready()
        return predictor

    yield begin
    for predictor in started:
        predictor.popen.kill()
        predictor.popen.wait()


@pytest.fixture(scope="module")
def start_predictor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Predictor]]:
    """Starts predictors that live until the file's last test."""
    with predictors(tmp_path_factory) as begin:
        yield begin


@pytest.fixture(scope="session")
def demo_bundle(
    sdzero: Callable[..., subprocess.CompletedProcess[str]], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The demo model, baked for this CPU; minutes where its packages have not been compiled before."""
    bundle = tmp_path_factory.mktemp("baked") / "shapes.bundle"
    ended = sdzero("bake", MODEL, "--device", "cpu", "--out", bundle)
    assert ended.returncode == 0, ended.stderr
    return bundle


@pytest.fixture(scope="session", params=["eager", "baked"])
def predictor(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Predictor]:
    """One predictor of each runtime for all tests; a test that hurts it leaves it ready."""
    with predictors(tmp_path_factory) as begin:
        if request.param == "eager":
            yield begin()
        else:
            yield begin(model=None, bundle=request.getfixturevalue("demo_bundle"))


@pytest.fixture(scope="session")
def capabilities_file(sdzero, demo_model, tmp_path_factory) -> Path:
    """What the demo model can do, as `sdzero capabilities` writes it."""
    path = tmp_path_factory.mktemp("capabilities") / "shapes.json"
    ended = sdzero("capabilities", "--model", demo_model, "--device", "cpu", "--out", path)
    assert ended.returncode == 0, ended.stderr
    return path


@contextlib.contextmanager
def edges(tmp_path_factory, capabilities_file) -> Iterator[Callable[..., Edge]]:
    """Starts edges in front of a predictor's address, with further settings as keywords; ends them all."""
    started: list[Edge] = []

    def begin(predictor_url: str, ready: bool = True, environment=None, **settings) -> Edge:
        settings = {"model_name": "shapes", "capabilities": capabilities_file} | settings
        edge = Edge(tmp_path_factory.mktemp("edge"), predictor_url, settings, environment or {})
        started.append(edge)
        return edge.start(ready)

    yield begin
    for edge in started:
        edge.kill()


@pytest.fixture(scope="module")
def start_edge(tmp_path_factory, capabilities_file) -> Iterator[Callable[..., Edge]]:
    """Starts edges that live until the file's last test."""
    with edges(tmp_path_factory, capabilities_file) as begin:
        yield begin


@pytest.fixture(scope="session")
def edge(tmp_path_factory, capabilities_file) -> Iterator[Edge]:
    """One edge in front of one real predictor, for all tests that hurt neither."""
    with predictors(tmp_path_factory) as predictor, edges(tmp_path_factory, capabilities_file) as begin:
        yield begin(predictor().url)


@pytest.fixture(scope="session")
def key(edge) -> str:
    """A key of that edge that may do everything but see others' things."""
    return edge.key("--name", "tests")
