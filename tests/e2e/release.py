"""A release of the chart, as its users install it: helm, then HTTP through the ingress."""

import base64
import contextlib
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx

from tests.e2e.asking import connect
from tests.e2e.cluster import Object, Way, eventually, get, helm, kubectl, run_in
from tests.e2e.settings import ROOT, Settings
from tests.e2e.sightings import SERVICE

CHART = ROOT / "charts" / "sdzero"
NAME = "sdzero"
MODEL = "shapes"
CONTAINER = "kserve-container"
WINDOW = 6  # seconds, the shortest that Knative allows: a cycle of a test is as short as it can be


@dataclass
class Release:
    """One namespace with one release in it; `values` are those that every install and upgrade of it gets."""

    settings: Settings
    namespace: str
    values: dict[str, Any] = field(default_factory=dict)
    clients: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)  # all that were made; to be closed

    def install(self, **changed: Any) -> None:
        """`helm install`, and wait until it can be asked."""
        self._helm("install", changed)
        self.wait_until_ready()

    def upgrade(self, *components: str, **changed: Any) -> None:
        """`helm upgrade`, and wait until all of it is there; `components` are those that get a new revision."""
        with self._renewed(components):
            self._helm("upgrade", changed)
        self.wait_until_ready()

    def _helm(self, verb: str, changed: Mapping[str, Any]) -> None:
        values = merged(defaults(self.settings), merged(self.values, changed))
        further = ["--values", self.settings.values] if self.settings.values else []
        with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
            json.dump(values, file)
            file.flush()
            helm(verb, NAME, str(CHART), "--namespace", self.namespace, *further, "--values", file.name)

    def uninstall(self) -> None:
        helm("uninstall", NAME, "--namespace", self.namespace, "--wait")

    def rollback(self, *components: str) -> None:
        """`helm rollback`, as `upgrade`."""
        with self._renewed(components):
            helm("rollback", NAME, "--namespace", self.namespace)
        self.wait_until_ready()

    @contextlib.contextmanager
    def _renewed(self, components: Sequence[str]) -> Iterator[None]:
        """The block gives these components new revisions: KServe does not say which change it has seen."""

        def latest() -> list[str]:
            services = [get("ksvc", self.service(one), "--namespace", self.namespace) for one in components]
            return [service["status"]["latestCreatedRevisionName"] for service in services]

        before = latest()
        yield
        eventually(lambda: not set(before) & set(latest()), 60, f"new revisions of {', '.join(components)}")

    def wait_until_ready(self, seconds: float = 300.0) -> None:
        """Every InferenceService is ready, with the latest revisions of all its services."""
        services = [item["metadata"]["name"] for item in get("isvc", "--namespace", self.namespace)["items"]]
        for name in services:
            eventually(lambda name=name: is_up_to_date(self.namespace, name), seconds, f"InferenceService {name} ready")

    def service(self, component: str, model: str = MODEL) -> str:
        """The Knative service of a model's `predictor` or `transformer`."""
        return f"{NAME}-{model}-{component}"

    def way(self, model: str = MODEL, component: str = "transformer") -> Way:
        """How clients outside reach it."""
        return Way(self.settings, self.namespace, self.service(component, model))

    def first_key(self) -> str:
        """The key that the chart made, which may do everything."""
        secret = get("secret", f"{NAME}-first-key", "--namespace", self.namespace)
        return base64.b64decode(secret["data"]["key"]).decode()

    def client(self, key: str | None = None, model: str = MODEL, **options: Any) -> httpx.Client:
        """A client of the edge with this key, or with the first one."""
        return self.clients.enter_context(connect(self.way(model), key or self.first_key(), **options))

    def stranger(self) -> httpx.Client:
        """A client without a key."""
        return self.clients.enter_context(connect(self.way()))

    def key(self, *options: str, model: str = MODEL) -> str:
        """A new key, made as the notes say, inside the edge's pod."""
        return self.in_edge("sdzero", "keys", "create", *options, model=model).strip()

    def in_edge(self, *command: str, model: str = MODEL) -> str:
        return self.in_pod(self.pod("transformer", model), *command)

    def in_predictor(self, *command: str, model: str = MODEL) -> str:
        return self.in_pod(self.pod("predictor", model), *command)

    def in_pod(self, pod: str, *command: str) -> str:
        """Standard output of a command in a pod's container."""
        return run_in(self.namespace, pod, CONTAINER, *command)

    def pod(self, component: str, model: str = MODEL) -> str:
        """The name of the component's running pod."""
        (pod,) = [item for item in self.pods(component, model) if "deletionTimestamp" not in item["metadata"]]
        return str(pod["metadata"]["name"])

    def pods(self, component: str, model: str = MODEL) -> list[Object]:
        selector = f"{SERVICE}={self.service(component, model)}"
        found: list[Object] = get("pods", "--namespace", self.namespace, "--selector", selector)["items"]
        return found

    def claim(self) -> str:
        """The name of the edge's volume claim."""
        (claim,) = get("pvc", "--namespace", self.namespace)["items"]
        return str(claim["metadata"]["name"])

    def delete_pod(self, name: str, *options: str) -> None:
        kubectl("delete", "pod", name, "--namespace", self.namespace, *options)


def defaults(settings: Settings) -> dict[str, Any]:
    """What every release of the suite has: the images under test, and the shortest window."""
    return {
        "predictor": {"image": image(settings.predictor_image), "scaling": {"windowSeconds": WINDOW}},
        "edge": {"image": image(settings.edge_image)},
    }


def image(reference: str) -> dict[str, str]:
    """REPOSITORY:TAG as the chart's values have it."""
    repository, _, tag = reference.rpartition(":")
    return {"repository": repository, "tag": tag}


def model(name: str = MODEL, **differences: object) -> dict[str, object]:
    """An entry of `models`: the demo model under this name."""
    return {"name": name, "capabilities": "files/shapes.bundle.capabilities.json"} | differences


def is_up_to_date(namespace: str, name: str) -> bool:
    """Whether an InferenceService is ready, and all of its services are with their latest revision."""
    if not _is_ready(get("isvc", name, "--namespace", namespace)):
        return False
    selector = f"serving.kserve.io/inferenceservice={name}"
    for service in get("ksvc", "--namespace", namespace, "--selector", selector)["items"]:
        status = service.get("status", {})
        if not _is_ready(service) or status.get("observedGeneration") != service["metadata"]["generation"]:
            return False
        if status.get("latestCreatedRevisionName") != status.get("latestReadyRevisionName"):
            return False
    return True


def _is_ready(item: Object) -> bool:
    # An InferenceService's observedGeneration is not its own: it is that of one of its services.
    return any(
        one["type"] == "Ready" and one["status"] == "True" for one in item.get("status", {}).get("conditions", ())
    )


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Values files as helm merges them: tables are merged, everything else is replaced."""
    both = dict(base)
    for name, value in over.items():
        old = both.get(name)
        both[name] = merged(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return both
