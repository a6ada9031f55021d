"""Every value is documented, known to the schema, and does something."""

import copy
import functools
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import yaml

from tests.chart.rendering import CHART, Object, Refused, install, template

TEXT = (CHART / "values.yaml").read_text(encoding="utf-8")
VALUES = yaml.safe_load(TEXT)
SCHEMA = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))


def leaves(values: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    """Each value with its place; an empty map or list is one, and so is a list of plain values."""
    if isinstance(values, Mapping) and values:
        for key, value in values.items():
            yield from leaves(value, f"{place}.{key}" if place else key)
    elif isinstance(values, list) and values and isinstance(values[0], Mapping):
        for i, value in enumerate(values):
            yield from leaves(value, f"{place}.{i}")
    else:
        yield place, values


LEAVES = dict(leaves(VALUES))
UNGUARDED = {"networkPolicy": {"enabled": False}}
STORES: dict[str, Any] = {
    "edge": {"database": {"existingSecret": "db"}, "redis": {"existingSecret": "r"}, "images": {"url": "s3://b"}},
    **UNGUARDED,
}
RULE = [{"ports": [{"port": 5432}]}]
# Where another value than the type's next one is needed: place → (value, values that it needs beside it).
OTHER: dict[str, tuple[Any, dict[str, Any]]] = {
    "imagePullSecrets": ([{"name": "registry"}], {}),
    "clusterDomain": ("example.org", {}),
    "securityContext.capabilities.drop": (["NET_RAW"], {}),
    "securityContext.seccompProfile.type": ("Localhost", {}),
    "knative.maxTimeoutSeconds": (500, {}),
    "models.0.capabilities": ("", {}),
    "models.0.capabilitiesConfigMap": ("mine", {"models": [{"name": "shapes", "capabilities": ""}]}),
    "models.0.source.form": ("folder", {}),
    "models.0.source.baked": (True, {"models": [{"name": "shapes", "source": {"baked": False, "oci": "a/b:1"}}]}),
    "models.0.protocol": ("grpc", {}),
    "models.0.visibility": ("cluster-local", {}),
    "models.0.unauthenticated": (True, {"edge": {"settings": {"auth": "none"}}}),
    "models.0.canaryTrafficPercent": (10, {}),
    "models.0.predictor": ({"timeoutSeconds": 300}, {}),
    "models.0.edge": ({"replicas": 1, "scratch": "3Gi"}, {}),
    "predictor.image.digest": (f"sha256:{'0' * 64}", {}),
    "predictor.image.pullPolicy": ("Always", {}),
    "predictor.device": ("cuda", {"predictor": {"gpu": {"count": 1}}}),
    "predictor.gpu.resource": (
        "amd.com/gpu",
        {
            "models": [{"name": "m", "source": {"form": "folder", "baked": True}}],
            "predictor": {"gpu": {"count": 1}, "device": "cuda"},
        },
    ),
    "predictor.resources.requests.cpu": ("300m", {}),
    "predictor.resources.requests.memory": ("1100Mi", {}),
    "predictor.resources.limits.cpu": ("3", {}),
    "predictor.resources.limits.memory": ("3Gi", {}),
    "predictor.scaling.containerConcurrency": (4, {}),
    "predictor.scaling.retentionSeconds": (60, {}),
    "predictor.timeoutSeconds": (500, {}),
    "predictor.nodeSelector": ({"pool": "gpu"}, {}),
    "predictor.tolerations": ([{"key": "gpu", "operator": "Exists"}], {}),
    "predictor.affinity": ({"nodeAffinity": {}}, {}),
    "predictor.podSecurityContext": ({"fsGroup": 1}, {}),
    "predictor.sharedMemory": ("1Gi", {}),
    "predictor.scratch": ("3Gi", {}),
    "predictor.settings": ({"max_rows": 8}, {}),
    "predictor.env": ([{"name": "A", "value": "b"}], {}),
    "predictor.annotations": ({"a": "b"}, {}),
    "predictor.labels": ({"a": "b"}, {}),
    "predictor.prewarm.schedule": ("0 8 * * *", {}),
    "predictor.prewarm.timeZone": ("Europe/Berlin", {"predictor": {"prewarm": {"schedule": "0 8 * * *"}}}),
    "predictor.prewarm.minutes": (5, {"predictor": {"prewarm": {"schedule": "0 8 * * *"}}}),
    "edge.image.digest": (f"sha256:{'0' * 64}", {}),
    "edge.image.pullPolicy": ("Always", {}),
    "edge.resources.requests.cpu": ("300m", {}),
    "edge.resources.requests.memory": ("300Mi", {}),
    "edge.resources.limits.cpu": ("2", {}),
    "edge.resources.limits.memory": ("1Gi", {}),
    "edge.replicas": (2, STORES),
    "edge.database.existingSecret": (
        "db",
        {"edge": {"images": {"url": "s3://b"}}, "networkPolicy": {"enabled": False}},
    ),
    "edge.redis.existingSecret": ("r", UNGUARDED),
    "edge.images.url": ("s3://pictures", {}),
    "edge.images.existingSecret": ("bucket", {"edge": {"images": {"url": "s3://pictures"}}}),
    "edge.persistence.existingClaim": ("mine", {"edge": {"persistence": {"enabled": True}}}),
    "edge.persistence.size": ("20Gi", {"edge": {"persistence": {"enabled": True}}}),
    "edge.persistence.storageClassName": ("fast", {"edge": {"persistence": {"enabled": True}}}),
    "edge.persistence.accessMode": ("ReadWriteMany", {"edge": {"persistence": {"enabled": True}}}),
    "edge.persistence.keep": (True, {"edge": {"persistence": {"enabled": True}}}),
    "edge.podDisruptionBudget.enabled": (
        False,
        {"edge": STORES["edge"] | {"replicas": 2}, **UNGUARDED},
    ),
    "edge.nodeSelector": ({"pool": "cpu"}, {}),
    "edge.tolerations": ([{"key": "gpu", "operator": "Exists"}], {}),
    "edge.affinity": ({"podAntiAffinity": {}}, {}),
    "edge.podSecurityContext": ({"fsGroup": 1}, {}),
    "edge.scratch": ("3Gi", {}),
    "edge.settings": ({"wakes_per_hour": 6}, {}),
    "edge.env": ([{"name": "A", "value": "b"}], {}),
    "edge.annotations": ({"a": "b"}, {}),
    "edge.labels": ({"a": "b"}, {}),
    "networkPolicy.metricsFrom": ({"a": "b"}, {}),
    "networkPolicy.predictor.egress": (RULE, {}),
    "networkPolicy.edge.egress": (RULE, {}),
}


def over(values: Any, given: Any) -> Any:
    """As Helm merges: maps by key, everything else replaced."""
    if isinstance(values, Mapping) and isinstance(given, Mapping):
        return {**values, **{key: over(values.get(key), value) for key, value in given.items()}}
    return copy.deepcopy(given)


def placed(values: dict[str, Any], place: str, value: Any) -> dict[str, Any]:
    """The values with one at a place; lists are written whole, since Helm merges none."""
    made = copy.deepcopy(values)
    *path, last = place.split(".")
    part: Any = made
    for step in path:
        part = part[int(step)] if isinstance(part, list) else part[step]
    part[last] = value
    return made


def another(place: str, value: Any) -> tuple[Any, dict[str, Any]]:
    if place in OTHER:
        return OTHER[place]
    if isinstance(value, bool):
        return not value, {}
    if isinstance(value, int):
        return value + 1, {}
    assert isinstance(value, str), f"{place}: what else may it be?"
    return "other", {}


@pytest.mark.parametrize("place", LEAVES)
def test_every_value_does_something(parts, place):
    """Another value makes other objects or other notes, or is refused by name."""
    value, beside = another(place, LEAVES[place])
    without = over(VALUES, beside)
    given = placed(without, place, value)
    assert given != without, f"{place}: {value!r} is what it is anyway"
    made = outcome(json.dumps(given))
    assert made != outcome(json.dumps(without))
    assert isinstance(made, tuple) or place.rpartition(".")[2] in made


@functools.cache
def outcome(values: str) -> str | tuple[list[Object], str]:
    """All that is made of values but what is drawn anew each time; or the words of the refusal."""
    try:
        rendered, said = install(json.loads(values))
    except Refused as refused:
        return str(refused)
    for one in rendered:
        if one["kind"] == "Secret":
            one["data"] = sorted(one["data"])
    return rendered, said


def test_every_value_is_documented():
    """By a comment above it or its group, above the map that it is in, or where the other process has the same."""
    told = commented(TEXT)
    names = {place.rpartition(".")[2] for place in told}

    def documented(place: str) -> bool:
        steps = place.split(".")
        above = {".".join(steps[:i]) for i in range(1, len(steps) + 1)} - {"models", "models.0", "predictor", "edge"}
        return bool(above & told) or bool({*steps[1:]} & names)

    assert [place for place in LEAVES if not documented(place)] == []


def commented(text: str) -> set[str]:
    """Places of the values that a comment stands above, with those that follow in the same group, or behind."""
    found: set[str] = set()
    path: list[tuple[int, str]] = []
    group: int | None = None  # the indent of what a comment is above
    for line in text.splitlines():
        plain = re.sub(r"^( *)- ", lambda dash: f"{dash[1]}  ", line)
        indent = len(plain) - len(plain.lstrip())
        if line.lstrip().startswith("- "):
            path = [*(one for one in path if one[0] < indent - 2), (indent - 2, "0")]
        if not plain.strip():
            group = None
        elif plain.lstrip().startswith("#"):
            group = indent
        elif key := re.match(r" *([\w.-]+):", plain):
            path = [*(one for one in path if one[0] < indent), (indent, key[1])]
            if indent == group or " # " in plain:
                found.add(".".join(name for _, name in path))
    return found


def test_comments_are_found():
    text = "# of a\na:\n  b: 1\n  # of c and d\n  c: 1\n  d: 1\n\n  e: 1 # of e\nl:\n  - # of m\n    m: 1\n    n: 1\n"
    assert commented(text) == {"a", "a.c", "a.d", "a.e", "l.0.m", "l.0.n"}


def test_the_schema_knows_every_value_and_the_file_every_value_of_the_schema():
    known = {re.sub(r"\.0\b", "", place) for place in LEAVES}
    in_schema = {place for place in schema_leaves(SCHEMA) if place != "global"}  # Helm's own
    unknown = {place for place in known if not any(place == one or one.startswith(f"{place}.") for one in in_schema)}
    assert unknown == set()
    # What is not written out stands in a comment; or the command's help tells of it, or Kubernetes.
    silent = {place for place in in_schema if place not in known and f"{place.rpartition('.')[2]}:" not in TEXT}
    elsewhere = {"settings", "env", "egress", "tolerations", "affinity", "resources", "capabilities", "seccompProfile"}
    elsewhere |= {"podSecurityContext"}
    assert {place for place in silent if not elsewhere & set(place.split("."))} == set()


def schema_leaves(schema: Mapping[str, Any], place: str = "") -> Iterator[str]:
    if reference := schema.get("$ref"):
        schema = SCHEMA["definitions"][reference.rpartition("/")[2]]
    if properties := schema.get("properties"):
        for name, part in properties.items():
            yield from schema_leaves(part, f"{place}.{name}" if place else name)
    elif "items" in schema and ("properties" in schema["items"] or "$ref" in schema["items"]):
        yield from schema_leaves(schema["items"], place)
    else:
        yield place


def test_the_schema_is_closed_wherever_it_names_properties():
    def open_ones(part: Any, place: str) -> Iterator[str]:
        if isinstance(part, Mapping):
            if "properties" in part and part.get("additionalProperties") is not False:
                yield place
            for key, value in part.items():
                yield from open_ones(value, f"{place}/{key}")

    assert list(open_ones(SCHEMA, "")) == []


def test_the_chart_s_readme_has_every_value():
    rows = (CHART / "README.md").read_text(encoding="utf-8")
    told = set(re.findall(r"^\| `([\w.\[\]/-]+)` ", rows, re.MULTILINE))
    # What is written on one line in the file, such as {cpu: 1, memory: 1Gi}, is one row.
    silent = {place.replace(".0", "[]") for place in LEAVES} - told
    assert {place for place in silent if place.rpartition(".")[0] not in told} == set()


def test_the_defaults_fit_the_schema_as_they_are(helm):
    assert template(helm, VALUES)


@pytest.mark.parametrize(
    ("kind", "source", "file"),
    [
        ("--model", "demo_model", "shapes.capabilities.json"),
        ("--bundle", "demo_bundle", "shapes.bundle.capabilities.json"),
    ],
)
def test_the_chart_says_of_the_demo_model_what_it_can_do(sdzero, request, kind, source, file):
    """`sdzero capabilities` wrote these files; a model that was trained again has another revision."""
    said = sdzero("capabilities", kind, request.getfixturevalue(source))
    assert said.stdout == (CHART / "files" / file).read_text(encoding="utf-8"), said.stderr
