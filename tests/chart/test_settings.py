"""What the chart tells the processes is what they take: arguments, variables, capabilities."""

import json
import os
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import msgspec
import pytest

from predictor import cli
from predictor.edge.settings import EdgeSettings
from predictor.settings import EngineSettings, ServerSettings
from tests.chart.projection import component, container, services
from tests.chart.rendering import CHART, Object, named, template

SCHEMA = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
# Settings that the chart derives from other values, or that the image has; these cannot be given.
OF_THE_CHART = {
    "predictor": {
        "model",
        "bundle",
        "device",
        "model_name",
        "http_port",
        "grpc_port",
        "timeout_seconds",
        "sleep_after_seconds",
        "end_drain",
    },
    "edge": {
        "predictor_url",
        "model_name",
        "capabilities",
        "http_port",
        "metrics_port",
        "data",
        "database_url",
        "redis_url",
        "images_url",
        "secret",
        "first_key",
        "idle_seconds",
        "timeout_seconds",
        "blocklist",
        "watch_pods",
    },
}
KINDS = {"predictor": (EngineSettings, ServerSettings), "edge": (EdgeSettings,)}
# What Secrets hold, by the key under which the chart looks; other keys are names of models, and addresses of stores.
HELD = {"secret": "s" * 48, "key": f"sk-sdz-{'k' * 43}"}
STORES = {"SDZERO_DATABASE_URL": "postgresql://u:p@db/sdzero", "SDZERO_REDIS_URL": "redis://:p@redis:6379/0"}


def environment(one: dict[str, Any]) -> dict[str, str]:
    """The variables of a container as its process sees them, the image's own included."""
    folder = {"SDZERO_MODEL": "/model"} if "predictor-eager" in one["image"] else {"SDZERO_BUNDLE": "/bundle"}
    variables = {variable["name"]: variable for variable in one["env"]}
    baked = {} if "STORAGE_URI" in variables or one["args"][0] == "serve-edge" else folder
    return baked | {name: _value(name, variable) for name, variable in variables.items()}


def _value(name: str, variable: dict[str, Any]) -> str:
    if "value" in variable:
        return str(variable["value"])
    return STORES.get(name) or HELD.get(variable["valueFrom"]["secretKeyRef"]["key"], "")


def made(objects: list[Object], part: str) -> list[Object]:
    every = [service for isvc in named(objects, "InferenceService") for service in services(isvc, objects)]
    return [service for service in every if component(service) == part]


def started(monkeypatch: pytest.MonkeyPatch, service: Object, process: str) -> tuple[Any, ...]:
    """What the command of a container hands to its process."""
    handed: list[tuple[Any, ...]] = []

    def main(*settings: Any) -> int:
        handed.append(settings)
        return 0

    one = container(service)
    monkeypatch.setattr(f"predictor.{process}.app.main", main)
    monkeypatch.setattr(os, "environ", environment(one))
    assert cli.main([str(word) for word in one["args"]]) == 0
    return handed[0]


def test_predictors_start_with_what_they_are_given(objects, monkeypatch):
    for service in made(objects, "predictor"):
        engine, server = started(monkeypatch, service, "server")
        one, template = container(service), service["spec"]["template"]["spec"]
        grpc = one["ports"][0].get("name") == "h2c"
        assert one["ports"][0]["containerPort"] == (server.grpc_port if grpc else server.http_port)
        assert one["readinessProbe"]["httpGet"]["port"] == server.http_port
        # A request ends before Knative ends it, and a pod's requests before the pod.
        assert server.timeout_seconds < template["timeoutSeconds"]
        assert server.grace_seconds < template["timeoutSeconds"]
        # What one pod is sent, it takes: anything else would be refused by the pod and not by the queue.
        assert template["containerConcurrency"] <= server.queue_images
        assert engine.device in ("cpu", "cuda")
        assert (engine.device == "cuda") == any("gpu" in name or "/" in name for name in one["resources"]["limits"])


def test_only_a_predictor_on_a_gpu_that_is_shared_sleeps(objects, monkeypatch):
    for service in made(objects, "predictor"):
        _, server = started(monkeypatch, service, "server")
        shared = "nvidia.com/gpu.shared" in container(service)["resources"]["limits"]
        assert server.sleep_after_seconds == (60 if shared else 0)
        # A pod that goes before its engine would sleep has nothing of it.
        if shared:
            assert service["spec"]["template"]["metadata"]["annotations"]["autoscaling.knative.dev/min-scale"] == "1"


def test_an_answer_may_begin_while_its_request_ends(objects):
    for service in made(objects, "predictor") + made(objects, "transformer"):
        annotations = service["spec"]["template"]["metadata"]["annotations"]
        http = container(service)["ports"][0].get("name") != "h2c"  # HTTP/2 can do so anyway
        assert annotations.get("features.knative.dev/http-full-duplex") == ("Enabled" if http else None)


def test_edges_start_with_what_they_are_given(objects, monkeypatch):
    for service in made(objects, "transformer"):
        (settings,) = started(monkeypatch, service, "edge")
        one, metadata = container(service), service["spec"]["template"]["metadata"]
        predictor = service["metadata"]["name"].removesuffix("-transformer") + "-predictor"
        assert settings.predictor_url == f"http://{predictor}.{service['metadata']['namespace']}.svc.cluster.local"
        assert settings.model_name == metadata["labels"]["sdzero.dev/model"]
        assert one["ports"] == [{"containerPort": settings.http_port, "protocol": "TCP"}]
        assert settings.metrics_port == 9464
        mounted = {mount["mountPath"] for mount in one["volumeMounts"]}
        assert settings.data in mounted
        assert not settings.capabilities or str(Path(settings.capabilities).parent) in mounted
        assert settings.timeout_seconds < service["spec"]["template"]["spec"]["timeoutSeconds"]


def test_edge_and_predictor_agree(objects, monkeypatch):
    transformers = made(objects, "transformer")
    edges = {service["metadata"]["name"].removesuffix("-transformer"): service for service in transformers}
    for service in made(objects, "predictor"):
        edge = edges.get(service["metadata"]["name"].removesuffix("-predictor"))
        if edge is None:  # gRPC
            continue
        _, server = started(monkeypatch, service, "server")
        (settings,) = started(monkeypatch, edge, "edge")
        assert settings.model_name == server.model_name
        assert settings.images_in_flight <= server.queue_images
        window = service["spec"]["template"]["metadata"]["annotations"]["autoscaling.knative.dev/window"]
        assert settings.idle_seconds >= int(window.removesuffix("s"))


@pytest.mark.parametrize("part", KINDS)
def test_the_schema_knows_every_setting_that_can_be_given(part):
    properties = SCHEMA["definitions"][part]["properties"]["settings"]["properties"]
    fields = {field.name: field for kind in KINDS[part] for field in msgspec.structs.fields(kind)}
    assert properties.keys() == fields.keys() - OF_THE_CHART[part]
    assert fields.keys() >= OF_THE_CHART[part]
    for name, entry in properties.items():
        assert _bounds(entry) == _bounds(_entry(fields[name].type)), name


def _entry(annotated: Any) -> dict[str, Any]:
    """A setting's type and bounds as JSON Schema has them."""
    plain, meta = get_args(annotated)
    if get_origin(plain) is Literal:
        return {"type": "string", "enum": list(get_args(plain))}
    kind = {bool: "boolean", int: "integer", float: "number", str: "string"}[plain]
    bounds = {"minimum": meta.ge, "maximum": meta.le, "exclusiveMinimum": meta.gt, "pattern": meta.pattern}
    return {"type": kind} | {key: value for key, value in bounds.items() if value is not None}


def _bounds(entry: dict[str, Any]) -> dict[str, Any]:
    return {key: entry[key] for key in ("type", "enum", "minimum", "maximum", "exclusiveMinimum") if key in entry}


@pytest.mark.parametrize("form", ["folder", "bundle"])
def test_the_demo_model_s_capabilities_are_what_the_command_writes(form, sdzero, demo_model, request):
    """The bundle does fewer sizes: told the folder's, an edge would wake a GPU for what is then refused."""
    source, name = ("--model", "shapes") if form == "folder" else ("--bundle", "shapes.bundle")
    place = demo_model if form == "folder" else request.getfixturevalue("demo_bundle")
    ended = sdzero("capabilities", source, place, "--device", "cpu")
    assert ended.returncode == 0, ended.stderr
    carried = json.loads((CHART / "files" / f"{name}.capabilities.json").read_text(encoding="utf-8"))
    assert carried == json.loads(ended.stdout)


def test_an_edge_is_told_the_limits_that_its_predictor_has(helm):
    limits = {"max_images": 3, "max_steps": 40, "max_prompt_bytes": 100}
    (config,) = named(template(helm, {"predictor": {"settings": limits}}), "ConfigMap", "sdzero-shapes-config")
    plain = json.loads((CHART / "files" / "shapes.bundle.capabilities.json").read_text(encoding="utf-8"))
    assert json.loads(config["data"]["capabilities.json"]) == plain | limits
