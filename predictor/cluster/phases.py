"""Changes of objects → new marks → phases; pure.

Whoever watches calls `Starts.take` with each change, in whatever order several watches bring them and however often a
list repeats what is known; each mark comes out once. Kubernetes tells times in whole seconds and in no order, but the
order of a pod's life is known, and every moment lies before it was received: `moments` puts the three together.
"""

from collections import deque
from collections.abc import Iterable, Sequence

import msgspec

from predictor.cluster import marks
from predictor.cluster.marks import LIFE, NOTICED, Mark
from predictor.cluster.objects import ContainerStatus, Deployment, EndpointSlice, Event, Pod
from predictor.core import timeline
from predictor.core.timeline import START, Phase

CLUSTER = "cluster"  # the process of the API's marks in a timeline
EARLY = 5.0  # seconds by which a pod may be seen before the decision that has made it: they come by two watches
REMEMBERED = 256  # events of pods that have not been seen, and pods that have gone
# How far a pod is; the one that is furthest is what a client waits for.
PHASES = (
    "no_pod", "image_error", "container_error", "crashing", "waiting_for_capacity", "scheduling", "preparing",
    "initializing", "pulling_image", "starting", "ready",
)  # fmt: skip
ONCE = ("pod", "scheduled", "sandbox", "initialized", "terminating", "endpoint")
TROUBLES = {"image": "image_error", "container": "container_error", "crashed": "crashing", "evicted": "crashing"}


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """An object as it is now, or was before it was deleted. `listed`: it was there before anybody watched."""

    object: Pod | Event | Deployment | EndpointSlice
    received: float
    deleted: bool = False
    listed: bool = False


class Standing(msgspec.Struct, frozen=True):
    """What a start waits for: one of `PHASES`, and why in the words of whoever says so."""

    phase: str
    detail: str = ""


class Life:
    """One pod from its decision to its end."""

    def __init__(self, pod: Pod, zero: Mark | None, *, watched: bool) -> None:
        self.pod = pod
        self.zero = zero  # the decision that has made it, if it was seen
        self.watched = watched  # before it was ready; else it has no story to tell
        self.process: list[timeline.Mark] = []  # of the process in it, in seconds since the epoch
        self._known: dict[tuple[str, str], list[Mark]] = {}
        self._chain: dict[str, Mark] = {}
        self._pulling: Mark | None = None

    @property
    def name(self) -> str:
        """The pod's name."""
        return self.pod.metadata.name

    @property
    def chain(self) -> list[Mark]:
        """The marks of its start, in the order of `LIFE`."""
        found = self._chain if self.zero is None else {"decision": self.zero} | self._chain
        return [found[name] for name in LIFE if name in found]

    @property
    def ready(self) -> Mark | None:
        """When it was ready for the first time."""
        return self._chain.get("ready")

    @property
    def leaving(self) -> bool:
        """Whether it is being deleted."""
        return self.pod.metadata.deletion_timestamp is not None

    def add(self, found: Iterable[Mark]) -> list[Mark]:
        """Those of the marks that are news."""
        news = []
        for mark in found:
            if self._is_known(mark) or (mark.name == "unready" and self.ready is None):
                continue
            self._known.setdefault((mark.name, mark.container), []).append(mark)
            news.append(mark)
            if mark.container not in ("", self.pod.main):
                continue
            if mark.name == "pulling":
                self._pulling = mark
            # A container that has crashed starts again; once its pod was ready, that is no part of the start.
            if mark.name not in self._chain or (mark.name == "started" and self.ready is None):
                self._chain[mark.name] = mark
        return news

    def _is_known(self, mark: Mark) -> bool:
        known = self._known.get((mark.name, mark.container), [])
        if mark.name in ONCE:
            return bool(known)
        if mark.name == "started":
            # An event and the container's status tell the same, by two looks at the clock.
            return any(abs((one.reported or 0.0) - (mark.reported or 0.0)) <= 1 for one in known)
        return any((one.reported, one.text) == (mark.reported, mark.text) for one in known)

    def standing(self) -> Standing:
        """What it waits for now."""
        status = self.pod.status
        conditions = {condition.type: condition for condition in status.conditions or ()}
        if (ready := conditions.get("Ready")) is not None and ready.status == "True":
            return Standing("ready")
        now = list(marks.of_pod(self.pod, 0.0))
        waits = [container.name for container in status.container_statuses or () if _waits(container)]
        for mark in now:
            if mark.name in ("image", "container", "evicted") or (mark.name == "crashed" and mark.container in waits):
                return Standing(TROUBLES[mark.name], mark.text)
        found = {mark.name: mark for mark in now if mark.container in ("", self.pod.main)}
        if "scheduled" not in found:
            capacity = found.get("capacity")
            return Standing("scheduling") if capacity is None else Standing("waiting_for_capacity", capacity.text)
        if "started" in found or "started" in self._chain:
            return Standing("starting")
        for container in status.init_container_statuses or ():
            if container.state is not None and container.state.running is not None and "initialized" not in found:
                return Standing("initializing", container.name)
        if self._pulling is not None and "pulled" not in self._chain:
            return Standing("pulling_image")
        return Standing("preparing")


def _started(pod: Pod) -> bool:
    ready = any((condition.type, condition.status) == ("Ready", "True") for condition in pod.status.conditions or ())
    return ready or pod.metadata.deletion_timestamp is not None


def _waits(container: ContainerStatus) -> bool:
    state = container.state
    return state is not None and (state.waiting is not None or state.terminated is not None)


class Starts:
    """Every pod of one Knative service, and what is told of it."""

    def __init__(self) -> None:
        self.lives: dict[str, Life] = {}  # by uid, of pods that have not gone
        self._gone: deque[str] = deque(maxlen=REMEMBERED)
        self._early: deque[tuple[str, Mark]] = deque(maxlen=REMEMBERED)
        self._replicas: dict[str, int] = {}
        self._told: set[tuple[str, str, float | None, str]] = set()  # of deployments
        self._decision: Mark | None = None  # as long as no pod has become ready after it
        self._no_pod = ""

    def take(self, change: Change) -> list[Mark]:
        """The marks that are new with this change, oldest first as far as the object has an order."""
        match change.object:
            case Pod() as pod:
                return self._pod(pod, change)
            case Event() as event:
                uid, mark = event.involved_object.uid or "", marks.of_event(event, change.received)
                return [] if mark is None or change.deleted else self._of_pod(uid, mark)
            case Deployment() as deployment:
                return self._deployment(deployment, change)
            case EndpointSlice() as slice:
                found = [] if change.deleted else marks.of_slice(slice, change.received)
                return [mark for uid, told in found for mark in self._of_pod(uid, told)]

    def standing(self) -> Standing | None:
        """What whoever waits for a pod waits for; None where there is none."""
        found = [life.standing() for life in self.lives.values() if not life.leaving]
        if not found:
            return Standing("no_pod", self._no_pod) if self._no_pod else None
        return max(found, key=lambda standing: PHASES.index(standing.phase))

    def _pod(self, pod: Pod, change: Change) -> list[Mark]:
        uid = pod.metadata.uid
        if uid in self._gone:
            return []
        self._no_pod = ""
        early: list[Mark] = []
        if (life := self.lives.get(uid)) is None:
            life = self.lives[uid] = Life(pod, self._decision, watched=not (change.listed and _started(pod)))
            early = [mark for of, mark in self._early if of == uid]
        life.pod = pod
        news = life.add([*marks.of_pod(pod, change.received), *early])
        if any(mark.name == "ready" for mark in news):
            self._decision = None
        if change.deleted:
            del self.lives[uid]
            self._gone.append(uid)
            text = "" if life.ready is not None else "before it was ready"
            news.append(Mark(name="gone", received=change.received, pod=pod.metadata.name, text=text))
            if not self.lives and self._decision is None:
                news.append(Mark(name="zero", received=change.received, text="no pod is left"))
        return news

    def _of_pod(self, uid: str, mark: Mark) -> list[Mark]:
        if (life := self.lives.get(uid)) is not None:
            return life.add([mark])
        if uid not in self._gone:
            self._early.append((uid, mark))
        return []

    def _deployment(self, deployment: Deployment, change: Change) -> list[Mark]:
        uid = deployment.metadata.uid
        if change.deleted:
            self._replicas.pop(uid, None)
            return []
        before = self._replicas.get(uid, None if change.listed else 0)
        self._replicas[uid] = now = deployment.spec.replicas or 0
        news = []
        for mark in marks.of_deployment(deployment, before, change.received):
            if mark.name == "no_pod":
                key = (uid, mark.name, mark.reported, mark.text)
                if key in self._told:
                    continue
                self._told.add(key)
                self._no_pod = mark.text
            elif now > (before or 0):
                self._decide(mark)
            news.append(mark)
        return news

    def _decide(self, mark: Mark) -> None:
        self._decision = mark
        for life in self.lives.values():
            created = life.chain[0].received if life.chain else 0.0
            if life.zero is None and life.ready is None and mark.received - created < EARLY:
                life.zero = mark


def moments(chain: Sequence[Mark]) -> list[float]:
    """The best guess of each mark's time, of marks in the order of a pod's life; never decreasing.

    A mark lies within what was reported and what its reception bounds. Whatever follows it bounds it as well, from
    above, and what went before it from below. If the clocks agree, a guess is never before the truth, and late by no
    more than its own reception or the rest of its reported second.
    """
    latest = [mark.latest for mark in chain]
    for i in range(len(chain) - 2, -1, -1):
        latest[i] = min(latest[i], latest[i + 1])
    found: list[float] = []
    earliest = float("-inf")
    for mark, late in zip(chain, latest, strict=True):
        # Where the clocks disagree, Kubernetes' own count: it is the same for all of its marks.
        if mark.reported is not None and mark.name not in NOTICED:
            earliest = max(earliest, mark.reported)
        found.append(max(earliest, late, found[-1] if found else earliest))
    return found


def marks_of(life: Life) -> list[timeline.Mark]:
    """The start of the pod and of the process in it, as a timeline in seconds since the epoch."""
    chain = life.chain
    found = [timeline.Mark(CLUSTER, START, at) for at in moments(chain)[:1]]
    for before, mark, at in zip(chain, chain[1:], moments(chain)[1:], strict=False):
        since = START if before is chain[0] else before.name
        found.append(timeline.Mark(CLUSTER, mark.name, at, since))
    return found + life.process


def phases(life: Life) -> list[Phase]:
    """The phases of the start, counted from its decision or, where nobody saw that, from the pod's creation."""
    return timeline.phases(marks_of(life))
