"""The chart and the manifests as their users' tools render them: Helm 3, Helm 4, kubectl."""

import functools
import json
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from tests.parts.clients import HELM, KUBECTL

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts" / "sdzero"
CASES = sorted((CHART / "ci").glob("*.yaml"))
RELEASE, NAMESPACE = "sdzero", "pictures"
Object = dict[str, Any]
Values = Path | Mapping[str, Any]  # a file, or the values themselves


class Refused(Exception):
    """Helm made nothing of these values; the message is what it wrote."""


class _Loader(yaml.CSafeLoader):
    """YAML as the API server reads it strictly: a key that comes twice is an error, not the last one's."""


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    keys = [loader.construct_object(key, deep=True) for key, _ in node.value]
    if twice := {key for key in keys if keys.count(key) > 1}:
        raise yaml.constructor.ConstructorError(None, None, f"key comes twice: {sorted(twice)}", node.start_mark)
    return loader.construct_mapping(node, deep=True)


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)
# A lone = is a text to everyone but PyYAML, which knows a draft of YAML's types.
_Loader.add_constructor("tag:yaml.org,2002:value", _Loader.construct_yaml_str)


def objects(text: str) -> list[Object]:
    """The objects of a stream of YAML documents; empty ones are none."""
    return [document for document in yaml.load_all(text, Loader=_Loader) if document]


def lint(major: int, values: Values, chart: Path = CHART) -> subprocess.CompletedProcess[str]:
    """`helm lint --strict` with these values.

    Raises:
        Missing: this Helm is not installed.
    """
    return _helm(major, ["lint", "--strict", str(chart)], values)


def template(
    major: int, values: Values, chart: Path = CHART, release: str = RELEASE, namespace: str = NAMESPACE
) -> list[Object]:
    """The objects that `helm template` makes, in its order.

    Raises:
        Missing: this Helm is not installed.
        Refused: it failed.
    """
    run = _helm(major, ["template", release, str(chart), "--namespace", namespace], values)
    if run.returncode:
        raise Refused(run.stderr.strip())
    return objects(run.stdout)


@functools.cache
def rendered(major: int, case: Path) -> list[Object]:
    """The chart's objects for a file of values, rendered once; not to be changed."""
    return template(major, case)


def install(values: Values, chart: Path = CHART, release: str = RELEASE) -> tuple[list[Object], str]:
    """What `helm install` would make, tests included, and what it would print: by Helm 4, since Helm 3 asks a cluster.

    Raises:
        Missing: Helm 4 is not installed.
        Refused: it failed.
    """
    asked = ["install", release, str(chart), "--namespace", NAMESPACE, "--dry-run=client", "--output", "json"]
    run = _helm(4, asked, values)
    if run.returncode:
        raise Refused(run.stderr.strip())
    made = json.loads(run.stdout)
    hooks = "\n---\n".join(hook["manifest"] for hook in made.get("hooks", []))
    return objects(f"{made['manifest']}\n---\n{hooks}"), made["info"]["notes"]


def kustomize(folder: Path) -> list[Object]:
    """The objects that `kubectl kustomize` makes of a folder.

    Raises:
        Missing: kubectl is not installed.
        Refused: it failed.
    """
    run = subprocess.run([KUBECTL.path(), "kustomize", str(folder)], capture_output=True, text=True)
    if run.returncode:
        raise Refused(run.stderr.strip())
    return objects(run.stdout)


def named(rendered: Sequence[Object], kind: str, name: str | None = None) -> list[Object]:
    """Those of one kind, and of one name where it is given."""
    return [one for one in rendered if one["kind"] == kind and name in (None, one["metadata"]["name"])]


def identity(one: Object) -> str:
    """What an object is called where people read it: Kind/name."""
    return f"{one['kind']}/{one['metadata']['name']}"


def _helm(major: int, asked: Sequence[str], values: Values) -> subprocess.CompletedProcess[str]:
    given = str(values) if isinstance(values, Path) else "-"
    return subprocess.run(
        [HELM[major].path(), *asked, "--values", given],
        input="" if isinstance(values, Path) else json.dumps(values),
        capture_output=True,
        text=True,
        # Nothing of the user's: no plugins, no repositories, no cluster.
        env={"HOME": _home(), "PATH": "/usr/bin:/bin"},
    )


@functools.cache
def _home() -> str:
    return tempfile.mkdtemp(prefix="sdzero-helm-")
