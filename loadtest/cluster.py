"""A deployment seen through the Kubernetes API, by the watches of `predictor.cluster`, in a thread of its own.

It is watched, never asked: nothing here wakes it.
"""

import asyncio
import threading
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from loadtest.deployments import Life, NotAtZero
from loadtest.phases import Moment
from predictor.cluster import phases
from predictor.cluster.access import Access
from predictor.cluster.api import Api, ApiError, Refused
from predictor.cluster.objects import Deployment, Pod
from predictor.cluster.phases import Change, Starts
from predictor.cluster.watching import Resource, deployments, events, follow, pods, slices

_LOOK = 0.1  # seconds between two looks at what the watches have told
_VITAL = ("pods", "deployments")  # zero cannot be known without them; the others only tell more


class Seen:
    """What changes have told of one Knative service; pure."""

    def __init__(self) -> None:
        self._starts = Starts()
        self._pods: dict[str, phases.Life] = {}  # by uid, those that have gone as well
        self._born: dict[str, float] = {}
        self._leaving: dict[str, float] = {}
        self._gone: dict[str, float] = {}
        self._wanted: dict[str, int] = {}  # replicas, by deployment

    def take(self, change: Change) -> None:
        """One change, of any of the service's objects."""
        self._starts.take(change)
        match change.object:
            case Pod() as pod:
                uid = pod.metadata.uid
                if (life := self._starts.lives.get(uid)) is not None:
                    self._pods.setdefault(uid, life)
                    self._born.setdefault(uid, change.received)
                    if life.leaving:
                        self._leaving.setdefault(uid, change.received)
                elif change.deleted and uid in self._born:
                    self._gone.setdefault(uid, change.received)
            case Deployment() as deployment:
                if change.deleted:
                    self._wanted.pop(deployment.metadata.uid, None)
                else:
                    self._wanted[deployment.metadata.uid] = deployment.spec.replicas or 0

    @property
    def left(self) -> int | None:
        """Replicas that are wanted and pods that are there; None before any deployment has been seen."""
        return sum(self._wanted.values()) + len(self._starts.lives) if self._wanted else None

    def start_after(self, moment: float) -> list[Moment]:
        """The chain of the first pod to be ready of those that came into being after `moment`."""
        lives = [life for uid, life in self._pods.items() if self._born[uid] > moment]
        if not lives:
            return []
        # Waiting requests go to whoever is ready first.
        first = min(lives, key=lambda life: float("inf") if life.ready is None else life.ready.at)
        chain = first.chain
        return [
            Moment(name=mark.name, at=at, received=mark.received, reported=mark.reported, text=mark.text)
            for mark, at in zip(chain, phases.moments(chain), strict=True)
        ]

    def lives(self) -> list[Life]:
        """Of every pod; one that was there before anybody watched counts from when it was first seen."""
        return [
            Life(
                since=born,
                ready=None if (ready := self._pods[uid].ready) is None else ready.received,
                leaving=self._leaving.get(uid, self._gone.get(uid)),
                until=self._gone.get(uid),
            )
            for uid, born in self._born.items()
        ]


class Watched:
    """One Knative service, watched from `with` on."""

    def __init__(self, access: Access, namespace: str, service: str) -> None:
        self._access, self._namespace, self._service = access, namespace, service
        self._seen = Seen()
        self._listed: set[str] = set()
        self._refused = ""
        self._lock = threading.Lock()
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()
        self._loop.close()

    def wait_for_zero(self, most: float) -> str:
        """Wait until no deployment wants a pod and none is there.

        Raises:
            NotAtZero: they stay, or the API refuses to tell.
        """
        deadline = time.monotonic() + most
        where = f"{self._namespace}/{self._service}"
        while True:
            with self._lock:
                refused, left = self._refused, self._seen.left
                listed = self._listed.issuperset(_VITAL)
            if refused:
                raise NotAtZero(f"{where}: {refused}")
            if listed and left == 0:
                return "seen: no replica is wanted and no pod is left"
            if time.monotonic() > deadline:
                what = "no such Knative service" if left is None else f"{left} replicas and pods are left"
                raise NotAtZero(f"{where}: {what} after {most:g} s")
            time.sleep(_LOOK)

    def start_after(self, moment: float, /) -> Sequence[Moment]:
        """See `Seen.start_after`."""
        with self._lock:
            return self._seen.start_after(moment)

    def lives(self) -> list[Life] | None:
        """See `Seen.lives`."""
        with self._lock:
            return self._seen.lives()

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._watch())
        except Exception as error:
            # Whoever waits for zero must learn that nobody looks any more.
            with self._lock:
                self._refused = f"nobody watches any more: {error!r}"

    async def _watch(self) -> None:
        async with Api(self._access) as api:
            wanted = [
                pods(self._namespace, self._service),
                events(self._namespace),
                deployments(self._namespace, self._service),
                slices(self._namespace, self._service),
            ]
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(follow(api, wanted, self._tell, self._trouble, time.time)),
                    group.create_task(self._list(api, wanted)),
                ]
                await self._stop.wait()
                for task in tasks:
                    task.cancel()

    async def _list(self, api: Api, wanted: Sequence[Resource]) -> None:
        """No change ever tells that there are no pods: ask once, so that zero is known and not assumed."""
        for resource in wanted:
            try:
                await api.list(resource.path, resource.params)
            except ApiError as error:
                self._trouble(resource, error)
            with self._lock:
                self._listed.add(resource.name)

    def _tell(self, change: Change) -> None:
        with self._lock:
            self._seen.take(change)

    def _trouble(self, resource: Resource, error: ApiError) -> None:
        if isinstance(error, Refused) and resource.name in _VITAL:
            with self._lock:
                self._refused = f"{resource.name}: {error}"
