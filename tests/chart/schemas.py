"""Whether an object is what its kind's schema allows: Kubernetes' own, or that of Knative's and KServe's CRDs."""

import functools
import json
import re
from typing import Any

import jsonschema
import kubernetes_validate
import yaml

from tests.chart.rendering import Object
from tests.parts.definitions import KNATIVE, KSERVE, folder

KUBERNETES = "1.34"
NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
# RBAC's names alone may hold what a path segment may.
PATH_SEGMENT = re.compile(r"(?!\.\.?\Z)[^/%]+")
LABEL_KEY = re.compile(r"([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
LABEL_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
# Kinds whose names become a label of a DNS name: the routes of a ksvc, a Service.
ONE_LABEL = {"InferenceService": 63 - len("-transformer-00001"), "Service": 63}
CRDS = {
    "serving.knative.dev": (KNATIVE, "config/core/300-resources/*.yaml"),
    "serving.kserve.io": (KSERVE, "config/crd/full/*.yaml"),
}


def errors(one: Object) -> list[str]:
    """What the API server would refuse about an object, each with its place; [] where it is valid.

    Rules written in CEL, and those of the webhooks, are not covered.

    Raises:
        Missing: the schemas of its kind were not fetched.
    """
    return list(_errors(json.dumps(one, sort_keys=True)))


@functools.lru_cache(maxsize=4096)
def _errors(text: str) -> tuple[str, ...]:
    one: Object = json.loads(text)
    return (*_names(one), *_schema(one))


def _schema(one: Object) -> list[str]:
    group = one["apiVersion"].rpartition("/")[0]
    if group not in CRDS:
        return _core(one)
    module, _ = CRDS[group]
    validator = _definitions(group).get((one["apiVersion"], one["kind"]))
    if validator is None:
        return [f"{one['apiVersion']} {one['kind']}: {module} defines no such kind"]
    found = [f"{error.json_path}: {error.message[:300]}" for error in validator.iter_errors(one)]
    # To a CRD's schema metadata is any object; the API server checks it like everyone's.
    return found + _core({"apiVersion": "v1", "kind": "ConfigMap", "metadata": one["metadata"]})


def _core(one: Object) -> list[str]:
    try:
        kubernetes_validate.validate(one, KUBERNETES, strict=True)
    except kubernetes_validate.ValidationError as error:
        return [f"{error.json_path}: {error.message[:300]}"]
    except kubernetes_validate.SchemaNotFoundError as error:
        return [error.message]
    return []


@functools.cache
def _definitions(group: str) -> dict[tuple[str, str], jsonschema.Draft202012Validator]:
    module, pattern = CRDS[group]
    validators = {}
    for file in sorted(folder(module).glob(pattern)):
        definition = yaml.load(file.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)
        spec = definition["spec"]
        for version in spec["versions"]:
            schema = strict(version["schema"]["openAPIV3Schema"])
            schema["properties"] |= {"apiVersion": {"type": "string"}, "kind": {"type": "string"}}
            schema["properties"] |= {"metadata": {"type": "object"}}
            kind = f"{spec['group']}/{version['name']}", spec["names"]["kind"]
            validators[kind] = jsonschema.Draft202012Validator(schema)
    return validators


def strict(schema: Any) -> Any:
    """A structural schema as JSON Schema that refuses what the API server would prune.

    https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/#specifying-a-structural-schema
    """
    if isinstance(schema, list):
        return [strict(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    made = {
        key: {name: strict(part) for name, part in value.items()} if key == "properties" else strict(value)
        for key, value in schema.items()
        if key not in ("default", "format", "description") and not key.startswith("x-kubernetes-")
    }
    if schema.get("x-kubernetes-int-or-string"):
        made["type"] = ["integer", "string"]
        made.pop("anyOf", None)
    if schema.get("nullable") and isinstance(made.get("type"), str):
        made["type"] = [made["type"], "null"]
    open_ended = "additionalProperties" in schema or schema.get("x-kubernetes-preserve-unknown-fields")
    if "properties" in schema and not open_ended:
        made["additionalProperties"] = False
    return made


def _names(one: Object) -> list[str]:
    metadata, kind = one["metadata"], one["kind"]
    found, name = [], metadata.get("name", "")
    allowed = PATH_SEGMENT if one["apiVersion"].startswith("rbac.") else NAME
    if not allowed.fullmatch(name) or len(name) > 253:
        found.append(f"$.metadata.name: {name!r} is no name")
    if kind in ONE_LABEL and (len(name) > ONE_LABEL[kind] or not re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", name)):
        found.append(f"$.metadata.name: {name!r} is no {kind}'s, of at most {ONE_LABEL[kind]} characters")
    for place, labels in _label_sets(one, "$"):
        for key, value in labels.items():
            if not LABEL_KEY.fullmatch(key):
                found.append(f"{place}: {key!r} is no label's key")
            if isinstance(value, str) and not LABEL_VALUE.fullmatch(value):
                found.append(f"{place}.{key}: {value!r} is no label's value")
    return found


def _label_sets(part: Any, place: str) -> list[tuple[str, dict[str, Any]]]:
    """Every map of labels or of a selector in an object."""
    if isinstance(part, list):
        return [found for i, one in enumerate(part) for found in _label_sets(one, f"{place}[{i}]")]
    if not isinstance(part, dict):
        return []
    found = []
    for key, value in part.items():
        if key in ("labels", "matchLabels") and isinstance(value, dict):
            found.append((f"{place}.{key}", value))
        elif key not in ("data", "stringData", "annotations"):
            found += _label_sets(value, f"{place}.{key}")
    return found
