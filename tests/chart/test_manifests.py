"""The kustomizations are what the chart makes of the same cases, but for what is Helm's own; and as sound."""

import re
from typing import Any

import pytest

from tests.chart.features import needed
from tests.chart.knative import defaults
from tests.chart.projection import pods, services, workloads
from tests.chart.rendering import CHART, ROOT, Object, identity, install, kustomize, named, template
from tests.chart.schemas import errors
from tests.chart.test_notes import patches
from tests.chart.upgrade import changes
from tests.parts import standards
from tests.parts.part import Missing

MANIFESTS = ROOT / "manifests"
OVERLAYS = ["cpu-demo", "one-gpu", "gpu-pool"]
FOLDERS = [*(f"overlays/{name}" for name in OVERLAYS), "runtime", "knative"]
# The lists whose order means nothing: field → what tells their entries apart.
KEYED = {"env": "name", "volumeMounts": "mountPath", "volumes": "name", "tolerations": "key"}


def of_the_chart(name: str) -> list[Object]:
    """The chart's objects for the case of an overlay, without Helm's own."""
    made = template(4, CHART / "ci" / f"{name}-values.yaml", namespace="sdzero")
    kept = [one for one in made if "helm.sh/hook" not in one["metadata"].get("annotations", {})]
    return [comparable(one) for one in kept if one["kind"] != "Secret"]


def of_the_overlay(name: str) -> list[Object]:
    return [comparable(one) for one in kustomize(MANIFESTS / "overlays" / name)]


def comparable(part: Any) -> Any:
    """Without who manages it and the hash of a ConfigMap, which both tools tell in their own way."""
    if isinstance(part, list):
        return [comparable(one) for one in part]
    if isinstance(part, str):
        return re.sub(r"^(sdzero-\w+-config)-[a-z0-9]{10}$", r"\1", part)
    if not isinstance(part, dict):
        return part
    made = {key: comparable(value) for key, value in part.items()}
    for own in ("app.kubernetes.io/managed-by", "sdzero.dev/config"):
        made.pop(own, None)
    for key, name in KEYED.items():
        if isinstance(made.get(key), list):
            made[key] = {one[name]: one for one in made[key]}
    return made


@pytest.mark.parametrize("name", OVERLAYS)
def test_an_overlay_is_what_the_chart_makes_of_its_case(name):
    """Where this fails it says what to change: the object, the place, the chart's value, the overlay's."""
    assert changes(of_the_chart(name), of_the_overlay(name)) == []


def test_a_runtime_s_pod_is_the_container_s(parts):
    objects = kustomize(MANIFESTS / "runtime")
    (isvc,) = named(objects, "InferenceService")
    (alone,) = named(kustomize(MANIFESTS / "overlays/one-gpu"), "InferenceService")
    predictor, edge = (comparable(pod) for pod in pods(isvc, named(objects, "ClusterServingRuntime")))
    expected, expected_edge = (comparable(pod) for pod in pods(alone))
    assert edge == expected_edge
    for variable in ("PROTOCOL", "STORAGE_URI"):  # how a container of one's own tells KServe
        del expected["spec"]["containers"][0]["env"][variable]
    assert predictor == expected


@pytest.mark.parametrize("folder", FOLDERS)
def test_what_it_makes_is_valid(folder):
    objects = kustomize(MANIFESTS / folder)
    runtimes = named(objects, "ClusterServingRuntime")
    made = [service for isvc in named(objects, "InferenceService") for service in services(isvc, runtimes)]
    every = [*objects, *made, *workloads(objects)]
    assert {identity(one): found for one in every if (found := errors(one))} == {}


@pytest.mark.parametrize("folder", FOLDERS)
def test_its_pods_are_restricted(folder):
    made = list(workloads(kustomize(MANIFESTS / folder)))
    try:
        assert set(standards.objections(made)) <= {""}
    except Missing as missing:
        pytest.skip(str(missing))


def test_no_secret_is_given_away():
    """Keys are drawn by whoever installs it: README.md has the commands, and pods wait for them by name."""
    for folder in FOLDERS:
        objects = kustomize(MANIFESTS / folder)
        assert named(objects, "Secret") == []
    commands = (MANIFESTS / "README.md").read_text(encoding="utf-8")
    for name in ("sdzero-first-key", "sdzero-secret"):
        assert f"create secret generic {name} " in commands


@pytest.mark.parametrize("name", OVERLAYS)
def test_knative_s_switches_are_all_set(name):
    switches = {one["metadata"]["name"]: one["data"] for one in kustomize(MANIFESTS / "knative")}
    isvcs = named(kustomize(MANIFESTS / "overlays" / name), "InferenceService")
    flags = set().union(*(needed(service) for isvc in isvcs for service in services(isvc)))
    assert flags <= switches["config-features"].keys()


def test_a_switch_is_one_of_knative_s_and_not_as_it_is_anyway():
    for one in kustomize(MANIFESTS / "knative"):
        known = defaults(one["metadata"]["name"])
        assert one["metadata"]["namespace"] == "knative-serving"
        for key, value in one["data"].items():
            assert key in known
            assert str(known[key]).lower() != value, f"{key}: is {value} anyway"


def test_every_switch_is_one_that_the_chart_s_notes_name(parts):
    told: dict[str, dict[str, str]] = {}
    for name in OVERLAYS:
        for config, data in patches(install(CHART / "ci" / f"{name}-values.yaml")[1]).items():
            told.setdefault(config, {}).update(data)
    assert told == {one["metadata"]["name"]: one["data"] for one in kustomize(MANIFESTS / "knative")}


def test_copies_are_copies():
    capabilities = MANIFESTS / "overlays/cpu-demo/capabilities.json"
    assert capabilities.read_bytes() == (CHART / "files/shapes.bundle.capabilities.json").read_bytes()
    assert len({path.read_bytes() for path in MANIFESTS.glob("overlays/*/merging.yaml")}) == 1


@pytest.mark.parametrize("folder", ["base", *FOLDERS])
def test_every_file_is_used(folder):
    folder = MANIFESTS / folder
    text = (folder / "kustomization.yaml").read_text(encoding="utf-8")
    for file in folder.iterdir():
        assert file.is_dir() or file.name in ("kustomization.yaml", "README.md") or file.name in text, file
