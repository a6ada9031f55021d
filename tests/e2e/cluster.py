"""The cluster that KUBECONFIG names, through the real kubectl and helm."""

import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.e2e.settings import Settings

Object = dict[str, Any]

# Written by the cluster itself while a release lives, and not by its objects' owners: gone by their own time.
PASSING = {"events", "events.events.k8s.io", "leases.coordination.k8s.io", "pods.metrics.k8s.io"}


def kubectl(*arguments: str, stdin: str | None = None, seconds: float = 120.0) -> str:
    """Run kubectl to its end; its standard output. What went wrong is in the failed assertion."""
    return _run("kubectl", *arguments, stdin=stdin, seconds=seconds)


def helm(*arguments: str, seconds: float = 600.0) -> str:
    """Run helm to its end; its standard output."""
    return _run("helm", *arguments, seconds=seconds)


def _run(*command: str, stdin: str | None = None, seconds: float) -> str:
    ended = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=seconds)
    assert ended.returncode == 0, f"{' '.join(command)}\n{ended.stdout}{ended.stderr}"
    return ended.stdout


def get(*arguments: str) -> Any:
    """`kubectl get` as JSON."""
    return json.loads(kubectl("get", *arguments, "--output", "json"))


def apply(namespace: str, *manifests: Object) -> None:
    """Server-side truth of these objects."""
    items = {"apiVersion": "v1", "kind": "List", "items": list(manifests)}
    kubectl("apply", "--namespace", namespace, "--filename", "-", stdin=json.dumps(items))


def objects(namespace: str) -> set[str]:
    """Kind and name of everything in a namespace, whatever kind the cluster knows."""
    kinds = kubectl("api-resources", "--namespaced", "--verbs", "list", "--output", "name").split()
    listed = kubectl("get", ",".join(sorted(set(kinds) - PASSING)), "--namespace", namespace, "--output", "name")
    return set(listed.split())


def eventually(condition: Callable[[], bool], seconds: float, what: str) -> None:
    """Ask now and again, where there is nothing to watch; fail when time is up."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds:.0f} s: {what}"
        time.sleep(0.25)


def switch_on(config_map: str, name: str, value: str) -> None:
    """Set a key of one of Knative's ConfigMaps, as the chart's notes tell an operator to, unless it is set so."""
    here = ("configmap", config_map, "--namespace", "knative-serving")
    if get(*here).get("data", {}).get(name) != value:
        kubectl("patch", *here, "--type", "merge", "--patch", json.dumps({"data": {name: value}}))


def run_in(namespace: str, pod: str, container: str, *command: str) -> str:
    """Standard output of a command inside a running container."""
    return kubectl("exec", "--namespace", namespace, pod, "--container", container, "--", *command)


def log_of(namespace: str, selector: str, container: str) -> str:
    """What a container of these pods has written so far."""
    return kubectl("logs", "--namespace", namespace, "--selector", selector, "--container", container, "--tail=-1")


def versions() -> dict[str, str]:
    """What a measurement depends on, without the name of any machine."""
    found = {"kubernetes": json.loads(kubectl("version", "--output", "json"))["serverVersion"]["gitVersion"]}
    (node, *others) = get("nodes")["items"]
    found["nodes"] = str(1 + len(others))
    found["cpus"] = node["status"]["capacity"]["cpu"]
    found["memory"] = node["status"]["capacity"]["memory"]
    found["runtime"] = node["status"]["nodeInfo"]["containerRuntimeVersion"]
    for name, namespace, deployment in (
        ("knative", "knative-serving", "activator"),
        ("kserve", "kserve", "kserve-controller-manager"),
    ):
        labels = get("deployment", deployment, "--namespace", namespace)["metadata"].get("labels", {})
        found[name] = labels.get("app.kubernetes.io/version", "unknown")
    return found


class Way:
    """How a client outside reaches a Knative service: an address, and the Host header that names the service."""

    def __init__(self, settings: Settings, namespace: str, service: str) -> None:
        url = get("ksvc", service, "--namespace", namespace)["status"]["url"]
        self.host = urlsplit(url).netloc
        self.url = settings.ingress or url

    @property
    def headers(self) -> dict[str, str]:
        """To be sent with every request."""
        return {"Host": self.host}

    @property
    def address(self) -> str:
        """HOST:PORT to connect to."""
        parts = urlsplit(self.url)
        return parts.netloc if parts.port else f"{parts.netloc}:80"


def read_manifest(name: str, /, **values: str) -> str:
    """A file of `services/`, with {placeholders} filled in."""
    text = (Path(__file__).with_name("services") / name).read_text(encoding="utf-8")
    for key, value in values.items():
        text = text.replace(f"${{{key}}}", value)
    return text
