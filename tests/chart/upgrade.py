"""What an upgrade from one version of the chart to another changes, and whether a cluster would take it."""

import subprocess
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

from tests.chart.rendering import Object, identity

# Fields that cannot be changed in place; a path's last part may be anything below it.
IMMUTABLE = {
    "Deployment": ["spec.selector"],
    "DaemonSet": ["spec.selector"],
    "StatefulSet": ["spec.selector", "spec.serviceName", "spec.volumeClaimTemplates", "spec.podManagementPolicy"],
    "Job": ["spec.template", "spec.selector", "spec.completionMode"],
    "PersistentVolumeClaim": [
        "spec.accessModes",
        "spec.storageClassName",
        "spec.volumeName",
        "spec.volumeMode",
        "spec.selector",
    ],
    "RoleBinding": ["roleRef"],
    "ClusterRoleBinding": ["roleRef"],
    "Secret": ["type"],
    # KServe keeps the mode that it began with; a predictor's name is part of its ksvc's, and so of its address.
    "InferenceService": ["metadata.annotations.serving.kserve.io/deploymentMode", "spec.predictor.name"],
}
# Kinds that hold what cannot be made again.
PRECIOUS = {"PersistentVolumeClaim", "Secret"}


@dataclass(frozen=True, order=True)
class Change:
    """A field that differs: `place` is a path, or "" for an object that is only in one of the versions."""

    object: str
    place: str
    old: str
    new: str


def changes(old: Sequence[Object], new: Sequence[Object]) -> list[Change]:
    """Every difference. Of Secrets only the keys count: what is in them is drawn, and kept where there is a cluster."""
    before, after = _by_identity(old), _by_identity(new)
    found = []
    for name in before.keys() | after.keys():
        if name not in after:
            found.append(Change(name, "", "present", "absent"))
        elif name not in before:
            found.append(Change(name, "", "absent", "present"))
        else:
            found += _differences(name, "", before[name], after[name])
    return sorted(found)


def refused(found: Sequence[Change]) -> list[str]:
    """Those of the changes that a cluster refuses, or that lose what cannot be made again."""
    said = []
    for change in found:
        kind = change.object.partition("/")[0]
        places = IMMUTABLE.get(kind, [])
        if any(change.place == place or change.place.startswith((f"{place}.", f"{place}[")) for place in places):
            said.append(f"{change.object}: {change.place} cannot change: {change.old} → {change.new}")
        if kind in PRECIOUS and change.new == "absent" and not change.place:
            said.append(f"{change.object}: would be deleted with what it holds")
    return said


def last_tag(repository: Path, path: str) -> str | None:
    """The newest tag of the repository in whose tree `path` is."""
    tags = _git(repository, "tag", "--sort=-creatordate").decode().split()
    there = (tag for tag in tags if _git(repository, "ls-tree", tag, path))
    return next(there, None)


def at(repository: Path, tag: str, path: str, into: Path) -> Path:
    """The folder `path` as it was at a tag, unpacked below `into`."""
    with tarfile.open(fileobj=BytesIO(_git(repository, "archive", tag, path))) as archive:
        archive.extractall(into, filter="data")
    return into / path


def _by_identity(rendered: Sequence[Object]) -> dict[str, Object]:
    return {identity(one): _comparable(one) for one in rendered}


def _comparable(one: Object) -> Object:
    if one["kind"] != "Secret":
        return one
    return one | {key: dict.fromkeys(one[key], "…") for key in ("data", "stringData") if key in one}


def _differences(name: str, place: str, old: Any, new: Any) -> list[Change]:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        return [
            change
            for key in old.keys() | new.keys()
            for change in _differences(name, f"{place}.{key}" if place else key, old.get(key), new.get(key))
        ]
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        return [
            change
            for i, (left, right) in enumerate(zip(old, new, strict=True))
            for change in _differences(name, f"{place}[{i}]", left, right)
        ]
    return [] if old == new else [Change(name, place, _shown(old), _shown(new))]


def _shown(value: Any) -> str:
    return "absent" if value is None else str(value)


def _git(repository: Path, *words: str) -> bytes:
    return subprocess.run(["git", *words], cwd=repository, capture_output=True, check=True).stdout
