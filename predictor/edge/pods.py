"""What the cluster says of the predictor's pods, where the edge may read that: a client learns what it waits for.

The API server is asked, never the predictor: nothing is woken. Without the right to read pods, or without a cluster,
one line in the log says so, and everything is as without this.
"""

from collections.abc import Callable

import structlog

from predictor.cluster.access import Access, NoAccess, of_this_pod
from predictor.cluster.api import Api, ApiError, Refused
from predictor.cluster.phases import Change, Standing, Starts
from predictor.cluster.watching import Resource, events, follow, pods
from predictor.edge.wake import Watch

NO_MACHINE = "waiting_for_capacity"
EDGE = ("unreachable", "starting")  # what the edge sees from outside, as long as the predictor has told no phase
log = structlog.get_logger("sdzero.edge")


class Pods:
    """The pods of one Knative service, as long as `run` does.

    Args:
        where: NAMESPACE/SERVICE; nothing is watched without it.
        watch: is told when the predictor waits for a machine.
        clock: seconds since the epoch.
        access: finds the API server; this pod's own account unless a test says otherwise.
    """

    def __init__(
        self, where: str, watch: Watch, clock: Callable[[], float], access: Callable[[], Access] = of_this_pod
    ) -> None:
        self._namespace, _, self._service = where.partition("/")
        self._watch = watch
        self._clock = clock
        self._access = access
        self._starts = Starts()
        self._quiet = False  # a trouble has been told, and nothing was heard since
        self._blind = False

    def report(self, phase: str) -> dict[str, object]:
        """The phase of a start as its followers are told, `phase` being what the edge itself has seen of it.

        `detail` is the scheduler's own sentence where no machine is free. Other troubles name images and machines, and
        are told by `sdzero watch`.
        """
        waits = self._waits_for()
        # Once the process in the pod has spoken, it knows more than the cluster.
        if waits is None or phase not in EDGE:
            return {"phase": phase}
        return {"phase": waits.phase, "detail": waits.detail} if waits.phase == NO_MACHINE else {"phase": waits.phase}

    async def run(self) -> None:
        """Watch for ever, or until it is clear that this edge may not."""
        if not self._service:
            return
        try:
            access = self._access()
        except NoAccess as error:
            log.warning("pods are not watched", said=str(error))
            return
        async with Api(access) as api:
            wanted = (pods(self._namespace, self._service), events(self._namespace))
            await follow(api, wanted, self._changed, self._trouble, self._clock)

    def _changed(self, change: Change) -> None:
        self._quiet = False
        self._starts.take(change)
        standing = self._waits_for()
        waits = standing is not None and standing.phase == NO_MACHINE
        self._watch.waits_for_machine(self._clock(), waits=waits)

    def _waits_for(self) -> Standing | None:
        standing = None if self._blind else self._starts.standing()
        return None if standing is None or standing.phase == "ready" else standing

    def _trouble(self, resource: Resource, error: ApiError) -> None:
        if isinstance(error, Refused) and resource.name == "pods":
            self._blind = True
        if not self._quiet:
            self._quiet = True
            log.warning("pods are not watched", resource=resource.name, said=str(error))
