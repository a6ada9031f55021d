"""One object of the API → what it tells of a start: marks with a name, a time and words.

Marks of a pod, in the order of its life (`LIFE`), each told by the object in brackets:

    decision     replicas go up from zero (Deployment; has no time of its own)
    pod          the pod exists (Pod, metadata)
    scheduled    it has a node (Pod, condition PodScheduled)
    sandbox      its volumes, network and sandbox are there (Pod, condition PodReadyToStartContainers)
    initialized  its init containers are done, if it has some (Pod, condition Initialized)
    pulled       the image of its main container is there (Event)
    created      its main container is created (Event)
    started      its main container runs (Event, or Pod, container status)
    ready        all its containers are ready (Pod, condition Ready)
    endpoint     it is behind the revision's private service (EndpointSlice; has no time of its own)

Others may come at any time, or never: `TROUBLE` needs somebody to look at it, the rest is news.
"""

from collections.abc import Iterator
from datetime import datetime

import msgspec

from predictor.cluster.objects import ContainerStatus, Deployment, EndpointSlice, Event, Pod

LIFE = ("decision", "pod", "scheduled", "sandbox", "initialized", "pulled", "created", "started", "ready", "endpoint")
# The kubelet stamps these when it next looks at the pod, which may be a second after they were so.
NOTICED = ("sandbox", "initialized")
TROUBLE = ("capacity", "no_pod", "image", "container", "crashed", "evicted")
IMAGE_REASONS = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "RegistryUnavailable")
NO_REASON = (None, "ContainerCreating", "PodInitializing")  # a container that waits as it should
EVENTS = {"Pulling": "pulling", "Pulled": "pulled", "Created": "created", "Started": "started"}
# A pod's own fields say these better: conditions, and states of containers.
TOLD_BY_THE_POD = ("FailedScheduling", "Failed", "BackOff", "Unhealthy")


class Mark(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A moment of a start. Times are seconds since the epoch.

    Attributes:
        name: see above.
        received: when this process read it; a little late, to the millisecond.
        reported: what the API says, cut to `resolution`; None where it says nothing.
        resolution: seconds: Kubernetes has whole ones, a process that writes its own log has exact ones.
        pod: the pod's name; empty for the deployment's marks.
        container: the container's name, where it is one container's.
        text: in the words of whoever has said it.
    """

    name: str
    received: float
    reported: float | None = None
    resolution: float = 1.0
    pod: str = ""
    container: str = ""
    text: str = ""

    @property
    def latest(self) -> float:
        """When it had happened at the latest, if the clocks agree."""
        return self.received if self.reported is None else min(self.received, self.reported + self.resolution)

    @property
    def at(self) -> float:
        """The best guess: when it was received, moved into the second that was reported."""
        return self.latest if self.reported is None else max(self.reported, self.latest)


def of_pod(pod: Pod, received: float) -> Iterator[Mark]:
    """Everything that the pod says now, in the order of its life."""

    def mark(name: str, at: datetime | None = None, text: str | None = None, container: str = "") -> Mark:
        return Mark(
            name=name,
            received=received,
            reported=None if at is None else at.timestamp(),
            pod=pod.metadata.name,
            container=container,
            text=text or "",
        )

    meta, status = pod.metadata, pod.status
    conditions = {condition.type: condition for condition in status.conditions or ()}

    def since(type: str) -> datetime | None:
        condition = conditions.get(type)
        return condition.last_transition_time if condition is not None and condition.status == "True" else None

    if meta.creation_timestamp is not None:
        yield mark("pod", meta.creation_timestamp)
    scheduling = conditions.get("PodScheduled")
    if scheduling is not None and scheduling.status == "False" and scheduling.reason is not None:
        yield mark("capacity", scheduling.last_transition_time, scheduling.message or scheduling.reason)
    if (at := since("PodScheduled")) is not None:
        yield mark("scheduled", at, f"on {pod.spec.node_name}" if pod.spec.node_name else None)
    if (at := since("PodReadyToStartContainers")) is not None:
        yield mark("sandbox", at)
    leaving = meta.deletion_timestamp is not None
    for container in status.init_container_statuses or ():
        for name, when, text in _of_container(container, leaving):
            yield mark("init" if name == "started" else name, when, text, container.name)
    if pod.spec.init_containers and (at := since("Initialized")) is not None:
        yield mark("initialized", at)
    for container in status.container_statuses or ():
        for name, when, text in _of_container(container, leaving):
            yield mark(name, when, text, container.name)
    if (at := since("Ready")) is not None:
        yield mark("ready", at)
    ready = conditions.get("Ready")
    if ready is not None and ready.status == "False" and not leaving:
        yield mark("unready", ready.last_transition_time, ready.message or ready.reason)
    if status.phase == "Failed" and not leaving:
        yield mark("evicted", None, ": ".join(filter(None, (status.reason, status.message))) or "the pod has failed")
    if meta.deletion_timestamp is not None:
        grace = meta.deletion_grace_period_seconds or 0.0
        # The API stamps a pod with the end of its grace, not with the moment when it was deleted.
        asked = meta.deletion_timestamp.timestamp() - grace
        yield msgspec.structs.replace(mark("terminating", None, f"grace {grace:.0f} s"), reported=asked)


def _of_container(container: ContainerStatus, leaving: bool) -> Iterator[tuple[str, datetime | None, str | None]]:
    before = container.last_state.terminated if container.last_state else None
    if before is not None:
        yield "crashed", before.finished_at, _ending(before.exit_code, before.reason)
    if container.state is None:
        return
    if (running := container.state.running) is not None:
        yield "started", running.started_at, None
    if (ended := container.state.terminated) is not None:
        yield "started", ended.started_at, None
        if leaving or ended.exit_code == 0:
            yield "stopped", ended.finished_at, _ending(ended.exit_code, ended.reason)
        else:
            yield "crashed", ended.finished_at, _ending(ended.exit_code, ended.reason)
    if (waiting := container.state.waiting) is not None and waiting.reason not in NO_REASON:
        text = ": ".join(filter(None, (waiting.reason, waiting.message)))
        yield "image" if waiting.reason in IMAGE_REASONS else "container", None, text


def _ending(exit_code: int, reason: str | None) -> str:
    return f"exit code {exit_code}" + (f", {reason}" if reason not in (None, "Error", "Completed") else "")


def of_event(event: Event, received: float) -> Mark | None:
    """What a component says of a pod; None of what the pod itself says better, or nobody needs to know."""
    reason = event.reason or ""
    if reason in TOLD_BY_THE_POD or (reason not in EVENTS and event.type != "Warning"):
        return None
    at = event.event_time or event.first_timestamp
    part = event.involved_object.field_path or ""
    text = "" if reason == "Started" else event.message or ""
    return Mark(
        name=EVENTS.get(reason, "warning"),
        received=received,
        reported=None if at is None else at.timestamp(),
        resolution=1.0 if event.event_time is None else 0.0,
        pod=event.involved_object.name or "",
        container=part.partition("{")[2].rstrip("}"),
        text=text if reason in EVENTS else f"{reason}: {text}",
    )


def of_deployment(deployment: Deployment, before: int | None, received: float) -> Iterator[Mark]:
    """What has become of the wish for pods since there were to be `before`; None: it is seen for the first time."""
    replicas = deployment.spec.replicas or 0
    if before is not None and replicas != before:
        name = "scaled_to_zero" if not replicas else "replicas" if before else "decision"
        yield Mark(name=name, received=received, text=f"replicas {before} → {replicas}")
    for condition in deployment.status.conditions or ():
        if condition.type == "ReplicaFailure" and condition.status == "True":
            text = condition.message or condition.reason or ""
            since = condition.last_transition_time
            yield Mark(
                name="no_pod", received=received, reported=None if since is None else since.timestamp(), text=text
            )


def of_slice(slice: EndpointSlice, received: float) -> Iterator[tuple[str, Mark]]:
    """The uid of each pod that may be sent requests, and the mark of it."""
    for endpoint in slice.endpoints or ():
        pod = endpoint.target_ref
        if pod is not None and pod.uid and endpoint.conditions.ready is not False:
            yield pod.uid, Mark(name="endpoint", received=received, pod=pod.name or "")
