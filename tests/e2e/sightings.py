"""What happened in a namespace, watched and not polled: every change of its Deployments, pods and events."""

import json
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self, TypeVar

from tests.e2e.cluster import Object, kubectl

Found = TypeVar("Found")

PATHS = {
    "Deployment": "/apis/apps/v1/namespaces/{}/deployments",
    "Pod": "/api/v1/namespaces/{}/pods",
    "Event": "/api/v1/namespaces/{}/events",
}
SERVICE = "serving.knative.dev/service"  # Knative's label on everything that belongs to a service


@dataclass(frozen=True)
class Sighting:
    """`change` is LISTED for what was there at the beginning, else ADDED, MODIFIED or DELETED."""

    at: float  # seconds since the epoch, when we were told
    kind: str
    change: str
    object: Object

    @property
    def name(self) -> str:
        return str(self.object["metadata"]["name"])


class Sightings:
    """The history of one namespace since `with` was entered."""

    def __init__(self, namespace: str) -> None:
        self.history: list[Sighting] = []
        self._namespace = namespace
        self._now: dict[tuple[str, str], Object] = {}
        self._changed = threading.Condition()
        self._watches: list[subprocess.Popen[str]] = []
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        for kind, path in PATHS.items():
            self._follow(kind, path.format(self._namespace))
        return self

    def __exit__(self, *_: object) -> None:
        for watch in self._watches:
            watch.terminate()
        for thread in self._threads:
            thread.join()

    def _follow(self, kind: str, path: str) -> None:
        """List, then watch from exactly there, so that nothing falls in between."""
        listed = json.loads(kubectl("get", "--raw", path))
        for item in listed["items"]:
            self._saw(kind, "LISTED", item)
        since = listed["metadata"]["resourceVersion"]
        command = ["kubectl", "get", "--raw", f"{path}?watch=1&resourceVersion={since}&timeoutSeconds=3600"]
        watch = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        thread = threading.Thread(target=self._read, args=(kind, watch), daemon=True)
        thread.start()
        self._watches.append(watch)
        self._threads.append(thread)

    def _read(self, kind: str, watch: subprocess.Popen[str]) -> None:
        with watch:
            assert watch.stdout is not None
            for line in watch.stdout:
                told = json.loads(line)
                self._saw(kind, told["type"], told["object"])

    def _saw(self, kind: str, change: str, item: Object) -> None:
        with self._changed:
            key = (kind, item["metadata"]["name"])
            if change == "DELETED":
                self._now.pop(key, None)
            else:
                self._now[key] = item
            self.history.append(Sighting(time.time(), kind, change, item))
            self._changed.notify_all()

    def wait(self, condition: Callable[[], Found | None], seconds: float, what: str) -> Found:
        """Until the condition holds; it is asked again after every sighting. Returns what it returned."""
        deadline = time.monotonic() + seconds
        with self._changed:
            while not (found := condition()):
                left = deadline - time.monotonic()
                assert left > 0, f"not within {seconds:.0f} s: {what}; there are {self.summary()}"
                self._changed.wait(left)
            return found

    def assert_complete(self) -> None:
        """Nothing can have been missed: the watches have never ended."""
        assert [watch.poll() for watch in self._watches] == [None] * len(PATHS)

    def now(self, kind: str, service: str) -> list[Object]:
        """What there is of a Knative service."""
        return [
            item
            for (its_kind, _), item in list(self._now.items())
            if its_kind == kind and item["metadata"].get("labels", {}).get(SERVICE) == service
        ]

    def of(self, service: str, since: float = 0.0) -> list[Sighting]:
        """Everything that was seen of a service's Deployments and pods after a time; not what was listed."""
        return [
            sighting
            for sighting in list(self.history)
            if sighting.at >= since
            and sighting.change != "LISTED"
            and sighting.object["metadata"].get("labels", {}).get(SERVICE) == service
        ]

    def events(self, pod: str) -> list[Object]:
        """The events about a pod, in the order in which they were seen."""
        return [
            sighting.object
            for sighting in list(self.history)
            if sighting.kind == "Event" and sighting.object["involvedObject"].get("name") == pod
        ]

    def is_at_zero(self, service: str) -> bool:
        """Whether no replica is wanted or there, and no pod object is left."""
        deployments = self.now("Deployment", service)
        wanted = [item for item in deployments if item["spec"].get("replicas") or item["status"].get("replicas")]
        return bool(deployments) and not wanted and not self.now("Pod", service)

    def wait_for_zero(self, service: str, seconds: float = 300.0) -> None:
        """Until replicas and pod objects are gone."""
        self.wait(lambda: self.is_at_zero(service) or None, seconds, f"{service} at zero")

    def wait_for_pod(
        self, service: str, condition: Callable[[Object], bool], what: str, seconds: float = 120
    ) -> Object:
        """The first pod of a service for which the condition holds."""
        return self.wait(
            lambda: next((pod for pod in self.now("Pod", service) if condition(pod)), None),
            seconds,
            f"a pod of {service} that {what}",
        )

    def most_pods(self, service: str, since: float) -> int:
        """How many pods of a service there were at once after a time; those that are being deleted do not count."""
        alive: set[str] = set()
        most = 0
        for sighting in list(self.history):
            if sighting.kind == "Pod" and sighting.object["metadata"].get("labels", {}).get(SERVICE) == service:
                ends = sighting.change == "DELETED" or "deletionTimestamp" in sighting.object["metadata"]
                (alive.discard if ends else alive.add)(sighting.name)
                if sighting.at >= since:
                    most = max(most, len(alive))
        return most

    def summary(self) -> str:
        """Names and states, for the message of a failed assertion."""
        parts = []
        for (kind, name), item in self._now.items():
            if kind == "Deployment":
                parts.append(f"{name} wants {item['spec'].get('replicas')}")
            elif kind == "Pod":
                parts.append(f"{name} is {item['status'].get('phase')}")
        return "; ".join(parts) or "no Deployments, no pods"


def stamp(event: Object) -> float:
    """When a component recorded an event, in seconds since the epoch by its node's clock.

    The times inside are whole seconds, but client-go puts its clock's nanoseconds into the name, in hexadecimal.
    """
    return int(event["metadata"]["name"].rpartition(".")[2], 16) / 1e9


def is_ready(pod: Object) -> bool:
    """Whether the kubelet says so."""
    return condition(pod, "Ready").get("status") == "True"


def condition(item: Object, kind: str) -> dict[str, Any]:
    """A condition of an object's status; empty while there is none."""
    return next((entry for entry in item["status"].get("conditions", ()) if entry["type"] == kind), {})
