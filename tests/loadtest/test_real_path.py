"""The whole path with the product's real processes: an edge, and a predictor that the first connection starts."""

import socket
import threading
from collections.abc import Iterator, Sequence

import pytest

from loadtest import results
from loadtest.deployments import Life
from loadtest.job import TargetSpec
from loadtest.phases import Moment
from loadtest.run import run
from loadtest.samples import outcomes
from loadtest.scenarios import SCENARIOS, changed
from tests.processes import free_port


class Sleeper:
    """A predictor at zero: its port is open, and the first connection to it starts the real one there."""

    def __init__(self, start_predictor) -> None:
        self._start_predictor = start_predictor
        self.port = free_port()
        self._predictor = None
        self._thread: threading.Thread | None = None

    def wait_for_zero(self, most: float) -> str:
        self.stop()
        listener = socket.create_server(("127.0.0.1", self.port))
        self._thread = threading.Thread(target=self._wake, args=(listener,))
        self._thread.start()
        return "stopped"

    def _wake(self, listener: socket.socket) -> None:
        with listener:
            connection, _ = listener.accept()
            connection.close()
        self._predictor = self._start_predictor(ready=False, http_port=self.port)

    def stop(self) -> None:
        if self._thread is not None:
            with socket.socket() as nobody:  # in case that nobody came
                nobody.connect_ex(("127.0.0.1", self.port))
            self._thread.join()
            self._thread = None
        if self._predictor is not None:
            self._predictor.popen.kill()
            self._predictor.popen.wait()
            self._predictor = None

    def start_after(self, _: float, /) -> Sequence[Moment]:
        return ()

    def lives(self) -> list[Life] | None:
        return None


@pytest.fixture
def sleeper(start_predictor) -> Iterator[Sleeper]:
    sleeper = Sleeper(start_predictor)
    yield sleeper
    sleeper.stop()


def test_a_burst_from_zero_through_edge_and_predictor(start_edge, sleeper, tmp_path):
    edge = start_edge(f"http://127.0.0.1:{sleeper.port}")
    settings = ["cycles=1", "arrivals.size=3", "mix.steps=2", "mix.sizes=64x64"]
    scenario = changed(SCENARIOS["burst-from-zero"], settings)
    targets = {"a": TargetSpec(url=edge.url, dialect="openai", model="shapes", greet="/healthz")}
    done = run(scenario, targets, tmp_path / "run", deployments={"a": sleeper}, key=edge.key("--name", "ruler"))
    last = outcomes(done.attempts)
    assert [(sample.outcome, sample.error) for sample in last] == [("ok", "")] * 3
    assert any(sample.cold for sample in last)
    assert len({sample.digests for sample in last}) == 3
    (start,) = done.starts
    parts = {part.name: part.seconds for part in start.parts}
    assert sum(parts.values()) == pytest.approx(start.seconds)
    # The edge knows what went on in the pod, phase by phase.
    assert {"server-imports", "server-engine_ready", "engine-ready"} <= set(start.told)
    assert 0 < parts["process"] < start.seconds
    assert parts["making"] > 0
    assert start.missing == ["the cluster's view: decision, scheduling, image and container are in `unexplained`"]
    found = results.result(
        done, name="burst-from-zero", targets=targets, requirements=[], price=None, command="", commit=""
    )
    assert found.targets["a"].latency["cold"].count == 3
    assert found.targets["a"].cost.busy_seconds_per_image > 0


@pytest.mark.parametrize("dialect", ["openai", "openai-stream", "v2"])
def test_every_dialect_is_answered_by_the_edge(edge, key, tmp_path, dialect):
    settings = [
        "arrivals.rate=4",
        "arrivals.seconds=2",
        "mix.steps=2",
        "mix.sizes=64x64",
        "mix.repeats=0.6",
        "mix.pool=2",
    ]
    targets = {"a": TargetSpec(url=edge.url, dialect=dialect, model="shapes")}
    done = run(
        changed(SCENARIOS["warm"], [*settings, "mix.repeats=1", "mix.pool=2", "warm_up=1"]),
        targets,
        tmp_path / "run",
        key=key,
        seed=11,
    )
    last = outcomes(done.attempts)
    assert {(sample.outcome, sample.error) for sample in last} == {("ok", "")}
    assert {sample.cache for sample in last} & {"hit", "joined"}
    assert all(sample.gpu_seconds is not None for sample in last)


@pytest.mark.parametrize("dialect", ["v2", "v2-grpc"])
def test_a_predictor_can_be_asked_directly(predictor, tmp_path, dialect):
    url = f"127.0.0.1:{predictor.grpc_port}" if dialect == "v2-grpc" else predictor.url
    size = "64x64" if predictor.any_size else "auto"
    settings = ["arrivals.rate=4", "arrivals.seconds=1.5", "mix.steps=2", f"mix.sizes={size}", "mix.repeats=0.6"]
    targets = {"a": TargetSpec(url=url, dialect=dialect, model="shapes")}
    done = run(changed(SCENARIOS["warm"], [*settings, "mix.pool=2", "warm_up=0"]), targets, tmp_path / "run", seed=11)
    last = outcomes(done.attempts)
    # Repeated pictures went through different batches, and are the same all the same.
    assert {(sample.outcome, sample.error) for sample in last} == {("ok", "")}
    assert all("denoise;dur=" in sample.server_timing for sample in last)


def test_whoever_has_no_key_is_refused_and_that_is_no_failure(edge, tmp_path):
    settings = ["arrivals.rate=5", "arrivals.seconds=1", "warm_up=0"]
    targets = {"a": TargetSpec(url=edge.url, dialect="openai", model="shapes")}
    done = run(changed(SCENARIOS["warm"], settings), targets, tmp_path / "run", key="sk-nobody")
    assert {(s.outcome, s.status, s.code) for s in done.attempts} == {("refused", 401, "unauthenticated")}
