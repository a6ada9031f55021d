"""The few fields of Kubernetes' objects that tell a start, as the API server sends them (JSON, camelCase).

Everything has a default, and null is the same as absent: the API leaves out what is empty, and old servers what is new.
"""

from datetime import datetime
from typing import TypeVar

import msgspec

T = TypeVar("T")


class _Object(msgspec.Struct, frozen=True, rename="camel"):
    pass


class Meta(_Object, frozen=True):
    """`metadata` of every object."""

    name: str = ""
    uid: str = ""
    resource_version: str | None = None
    annotations: dict[str, str] | None = None
    creation_timestamp: datetime | None = None
    deletion_timestamp: datetime | None = None
    deletion_grace_period_seconds: float | None = None


class Condition(_Object, frozen=True):
    """A condition of a pod or a deployment."""

    type: str = ""
    status: str = ""
    reason: str | None = None
    message: str | None = None
    last_transition_time: datetime | None = None


class Named(_Object, frozen=True):
    """A container as the pod's spec names it."""

    name: str = ""


class PodSpec(_Object, frozen=True):
    """`spec` of a pod."""

    containers: list[Named] | None = None
    init_containers: list[Named] | None = None
    node_name: str | None = None


class Waiting(_Object, frozen=True):
    """A container that does not run yet, or again."""

    reason: str | None = None
    message: str | None = None


class Running(_Object, frozen=True):
    """A container that runs."""

    started_at: datetime | None = None


class Terminated(_Object, frozen=True):
    """A container's end."""

    exit_code: int = 0
    reason: str | None = None
    message: str | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None


class ContainerState(_Object, frozen=True):
    """At most one of the three."""

    waiting: Waiting | None = None
    running: Running | None = None
    terminated: Terminated | None = None


class ContainerStatus(_Object, frozen=True):
    """What the kubelet says of one container; `last_state` is its end before this life."""

    name: str = ""
    state: ContainerState | None = None
    last_state: ContainerState | None = None


class PodStatus(_Object, frozen=True):
    """`status` of a pod."""

    phase: str | None = None
    reason: str | None = None
    message: str | None = None
    conditions: list[Condition] | None = None
    container_statuses: list[ContainerStatus] | None = None
    init_container_statuses: list[ContainerStatus] | None = None


class Pod(_Object, frozen=True):
    """A pod, of core/v1."""

    metadata: Meta = Meta()
    spec: PodSpec = PodSpec()
    status: PodStatus = PodStatus()

    @property
    def main(self) -> str:
        """The container that serves: the one Knative names as the default, else the first."""
        named = (self.metadata.annotations or {}).get("kubectl.kubernetes.io/default-container")
        return named or next((container.name for container in self.spec.containers or ()), "")


class Reference(_Object, frozen=True):
    """Another object; `field_path` is a part of it, such as `spec.containers{user-container}`."""

    kind: str | None = None
    name: str | None = None
    uid: str | None = None
    field_path: str | None = None


class Event(_Object, frozen=True):
    """What a component has to say of an object; core/v1."""

    metadata: Meta = Meta()
    involved_object: Reference = Reference()
    type: str | None = None
    reason: str | None = None
    message: str | None = None
    first_timestamp: datetime | None = None
    event_time: datetime | None = None


class DeploymentSpec(_Object, frozen=True):
    """`spec` of a deployment."""

    replicas: int | None = None


class DeploymentStatus(_Object, frozen=True):
    """`status` of a deployment."""

    conditions: list[Condition] | None = None


class Deployment(_Object, frozen=True):
    """A deployment, of apps/v1; the API server says one replica where nothing is said."""

    metadata: Meta = Meta()
    spec: DeploymentSpec = DeploymentSpec()
    status: DeploymentStatus = DeploymentStatus()


class EndpointConditions(_Object, frozen=True):
    """`ready` is unknown where it is absent, and counts as true (discovery.k8s.io/v1, EndpointConditions)."""

    ready: bool | None = None


class Endpoint(_Object, frozen=True):
    """One pod behind a service."""

    conditions: EndpointConditions = EndpointConditions()
    target_ref: Reference | None = None


class EndpointSlice(_Object, frozen=True):
    """Pods behind a service, of discovery.k8s.io/v1."""

    metadata: Meta = Meta()
    endpoints: list[Endpoint] | None = None


KINDS = (Pod, Event, Deployment, EndpointSlice)


def read(raw: object, kind: type[T]) -> T:
    """One object of the API, out of decoded JSON.

    Raises:
        ValueError: a field has a type that Kubernetes does not give it.
    """
    try:
        return msgspec.convert(_without_null(raw), kind)
    except msgspec.ValidationError as error:
        raise ValueError(f"{kind.__name__}: {error}") from None


def _without_null(raw: object) -> object:
    # Go writes null for an empty list, map or time in some places, and nothing in others.
    if isinstance(raw, dict):
        return {key: _without_null(value) for key, value in raw.items() if value is not None}
    return [_without_null(value) for value in raw] if isinstance(raw, list) else raw
