"""Lists once, then watches for ever; tells of every change, also of those that a lost connection has hidden."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import aclosing

import msgspec

from predictor.cluster.api import Api, ApiError, Away, Gone, Params, Refused
from predictor.cluster.objects import Deployment, EndpointSlice, Event, Pod, read
from predictor.cluster.phases import Change

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 10.0  # seconds before a watch is begun again; doubles while nothing comes of it
SERVICE = "serving.knative.dev/service"  # the label by which Knative marks everything that belongs to a service


class Resource(msgspec.Struct, frozen=True):
    """A collection of the API, and which of its objects are wanted."""

    name: str
    kind: type[Pod] | type[Event] | type[Deployment] | type[EndpointSlice]
    path: str
    params: Params


def pods(namespace: str, service: str) -> Resource:
    """The pods of a Knative service."""
    return Resource("pods", Pod, f"/api/v1/namespaces/{namespace}/pods", {"labelSelector": f"{SERVICE}={service}"})


def events(namespace: str) -> Resource:
    """What is said of any pod; the API cannot select by a service."""
    path = f"/api/v1/namespaces/{namespace}/events"
    return Resource("events", Event, path, {"fieldSelector": "involvedObject.kind=Pod"})


def deployments(namespace: str, service: str) -> Resource:
    """The deployments of a Knative service's revisions."""
    path = f"/apis/apps/v1/namespaces/{namespace}/deployments"
    return Resource("deployments", Deployment, path, {"labelSelector": f"{SERVICE}={service}"})


def slices(namespace: str, service: str) -> Resource:
    """The pods behind each revision's private service, to which Knative's activator sends requests."""
    path = f"/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices"
    selector = f"{SERVICE}={service},networking.internal.knative.dev/serviceType=Private"
    return Resource("endpointslices", EndpointSlice, path, {"labelSelector": selector})


async def follow(
    api: Api,
    resources: Sequence[Resource],
    tell: Callable[[Change], object],
    trouble: Callable[[Resource, ApiError], object],
    clock: Callable[[], float],
) -> None:
    """Tell of everything that becomes of the resources; return when all of them are refused.

    Args:
        api: where they are.
        resources: each has a watch of its own.
        tell: is called with each change.
        trouble: is called with what has gone wrong: `Refused` is the end of that resource, the rest passes.
        clock: seconds since the epoch.
    """
    async with asyncio.TaskGroup() as group:
        for resource in resources:
            group.create_task(_follow(api, resource, tell, trouble, clock))


async def _follow(
    api: Api,
    resource: Resource,
    tell: Callable[[Change], object],
    trouble: Callable[[Resource, ApiError], object],
    clock: Callable[[], float],
) -> None:
    collection = _Collection(resource, tell, clock)
    pause = FIRST_PAUSE
    while True:
        try:
            if collection.version is None:
                listed = await api.list(resource.path, resource.params)
                collection.listed(listed.items or [], listed.metadata.resource_version)
            async with aclosing(api.watch(resource.path, resource.params, collection.version or "")) as watched:
                async for event in watched:
                    collection.changed(event.type, event.object)
                    pause = FIRST_PAUSE
        except Refused as error:
            trouble(resource, error)
            return
        except Gone:
            collection.version = None
        except Away as error:
            trouble(resource, error)
        await asyncio.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE)


class _Collection:
    """What is known of a resource; None is the version before its first list, and after the server forgot ours."""

    def __init__(self, resource: Resource, tell: Callable[[Change], object], clock: Callable[[], float]) -> None:
        self.version: str | None = None
        self._resource = resource
        self._tell = tell
        self._clock = clock
        self._known: dict[str, Pod | Event | Deployment | EndpointSlice] = {}

    def listed(self, items: Sequence[object], version: str) -> None:
        now = self._clock()
        before, self._known = self._known, {}
        for item in items:
            thing = self._read(item)
            self._keep(thing)
            self._tell(Change(object=thing, received=now, listed=True))
        # Whatever has gone while nobody watched is not in the list, and no event will tell of it.
        for uid, thing in before.items():
            if uid not in self._known:
                self._tell(Change(object=thing, received=now, deleted=True))
        self.version = version

    def changed(self, type: str, item: object) -> None:
        now = self._clock()
        thing = self._read(item)
        if type != "BOOKMARK":
            deleted = type == "DELETED"
            self._keep(thing, deleted=deleted)
            self._tell(Change(object=thing, received=now, deleted=deleted))
        self.version = thing.metadata.resource_version or self.version

    def _keep(self, thing: Pod | Event | Deployment | EndpointSlice, *, deleted: bool = False) -> None:
        if isinstance(thing, Event):
            return  # thousands of them, and nobody needs to know that one has gone
        if deleted:
            self._known.pop(thing.metadata.uid, None)
        else:
            self._known[thing.metadata.uid] = thing

    def _read(self, item: object) -> Pod | Event | Deployment | EndpointSlice:
        try:
            return read(item, self._resource.kind)
        except ValueError as error:
            raise Away(f"{self._resource.name}: {error}") from None
