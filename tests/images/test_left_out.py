"""The lean predictor starts, answers in every way and ends without what its image leaves out."""

import importlib.metadata
import json
import signal
import threading
import warnings
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import numpy as np
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from predictor.lab.shapes.checker import check

with warnings.catch_warnings():
    # Old idioms of the client's own imports.
    warnings.simplefilter("ignore")
    import tritonclient.grpc as triton

ROOT = Path(__file__).parents[2]
LEFT_OUT = [
    line
    for line in (ROOT / "predictor" / "lab" / "images" / "left_out.txt").read_text(encoding="utf-8").splitlines()
    if line and not line.startswith("#")
]
NAME_ONLY = "pandas"
# Executed by every Python that starts: a module of the given files is not found, or only its name is.
BLOCKER = """
import importlib.machinery, json, pathlib, sys

FILES = frozenset(json.loads(pathlib.Path(__file__).with_name("files.json").read_text()))

class Absent:
    def find_spec(self, name, path=None, target=None):
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is None or spec.origin not in FILES:
            return None
        if name == "{name_only}":
            spec.loader = self
            return spec
        raise ModuleNotFoundError(f"No module named {name!r}: it is left out", name=name)

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        raise ImportError(f"{module.__name__} is left out")

sys.meta_path.insert(0, Absent())
""".replace("{name_only}", NAME_ONLY)


class Collector(ThreadingHTTPServer):
    """Takes spans over OTLP/HTTP and remembers their names."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Take)
        self.spans: set[str] = set()


class _Take(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        sent = ExportTraceServiceRequest.FromString(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.spans |= {
            span.name for resource in sent.resource_spans for scope in resource.scope_spans for span in scope.spans
        }
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *arguments: object) -> None:
        """Quiet."""


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def lean(start_predictor, demo_bundle, collector, tmp_path, monkeypatch):
    """A predictor in an environment where nothing of what is left out can be imported."""
    files = [str(path.locate()) for name in LEFT_OUT for path in importlib.metadata.files(name) or []]
    assert len(files) > 1000
    (tmp_path / "files.json").write_text(json.dumps(files))
    (tmp_path / "sitecustomize.py").write_text(BLOCKER)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{collector.server_port}")
    return start_predictor(model=None, bundle=demo_bundle)


def test_a_predictor_needs_nothing_of_what_is_left_out(lean, collector):
    found = check(lean.picture("a red circle on a blue background", seed=7, steps=20))
    assert (found.shape, found.colour, found.background) == ("circle", "red", "blue")
    for form in ("webp", "jpeg"):
        assert lean.infer("a star", image_format=form, steps=2).status_code == 200
    assert lean.infer("a star", steps=0).json()["code"] == "invalid_field"
    assert httpx.post(f"{lean.model_url}/infer", content=b"\0" * 10).status_code == 400
    for path in ("/v2", "/v2/models/shapes", "/v2/health/live", "/metrics"):
        assert httpx.get(lean.url + path).status_code == 200
    assert httpx.get(f"{lean.url}/docs").status_code == 404
    fields = {"prompt": "a blue square", "steps": 4}
    with httpx.stream("POST", f"{lean.model_url}/generate_stream", json=fields, timeout=60) as reply:
        assert "event: done" in list(reply.iter_lines())
    with triton.InferenceServerClient(f"127.0.0.1:{lean.grpc_port}") as client:
        prompt = triton.InferInput("prompt", [1], "BYTES")
        prompt.set_data_from_numpy(np.array([b"a green star"], dtype=object))
        assert client.is_server_ready()
        assert client.get_model_metadata("shapes").name == "shapes"
        assert client.infer("shapes", [prompt], parameters={"steps": 2}).as_numpy("image").shape == (1,)
    lean.popen.send_signal(signal.SIGTERM)
    assert lean.popen.wait(30) == 0
    assert collector.spans
    said = lean.output.read_text()
    assert "left out" not in said
    assert "Traceback" not in said


def test_what_is_left_out_is_installed_by_something_and_pinned():
    pinned = {line.partition("==")[0] for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()}
    assert sorted(set(LEFT_OUT)) == sorted(LEFT_OUT)
    assert set(LEFT_OUT) <= pinned
