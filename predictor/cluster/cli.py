"""`sdzero watch`: follows cold starts live through the Kubernetes API, and wakes nothing."""

import argparse
import asyncio
import sys
import time
from collections.abc import Callable, Coroutine
from contextlib import aclosing
from typing import Any

from predictor.cluster import process
from predictor.cluster.access import Access, NoAccess, found
from predictor.cluster.api import Api, ApiError, Away, Refused
from predictor.cluster.marks import Mark
from predictor.cluster.phases import Change, Life, Starts
from predictor.cluster.process import Said
from predictor.cluster.telling import ForPeople, ForPrograms, Teller
from predictor.cluster.watching import SERVICE, Resource, deployments, events, follow, pods, slices
from predictor.core import timeline

PORT = 8080  # of the predictor's REST API; with gRPC the pod declares another one, and this is open all the same
TIMELINE_SECONDS = 5.0  # for a pod's answer, which a network policy may swallow
AGAIN = 0.2  # seconds before a log is asked for again that is not there yet
SETTLES = 2.0  # seconds after a pod is ready in which its log may say that it is one of ours
ANSWERS = 60.0  # seconds after that in which the request may be answered that has woken it


def main(argv: list[str]) -> int:
    """Watch until interrupted; 1 if `--once` saw no start to its end within `--timeout`, 2 without access."""
    parser = argparse.ArgumentParser(prog="sdzero watch", description=__doc__, allow_abbrev=False)
    parser.add_argument("name", help="the InferenceService; its predictor is watched")
    parser.add_argument("--service", action="store_true", help="NAME is a Knative service, such as NAME-transformer")
    parser.add_argument("-n", "--namespace", help="where it is [the kubeconfig's or this pod's own]")
    parser.add_argument("--once", action="store_true", help="end after one cold start")
    parser.add_argument("--timeout", type=float, metavar="SECONDS", help="end after so long [never]")
    parser.add_argument("--json", action="store_true", help="JSON lines for a machine to read")
    parser.add_argument("--kubeconfig", metavar="FILE", help="[KUBECONFIG, ~/.kube/config, or this pod's own account]")
    parser.add_argument("--context", help="of the kubeconfig [its current one]")
    given = parser.parse_args(argv)
    if given.timeout is not None and not given.timeout > 0:
        parser.error(f"--timeout: got {given.timeout:g}; allowed: seconds above 0")
    teller = ForPrograms() if given.json else ForPeople()
    try:
        access = found(given.kubeconfig, given.context)
        service = given.name if given.service else f"{given.name}-predictor"
        watch = watching(access, given.namespace or access.namespace, service, teller, once=given.once)
        return asyncio.run(_limited(watch, given.timeout, 1 if given.once else 0))
    except (NoAccess, ApiError) as error:
        print(f"sdzero watch: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


async def _limited(watch: Coroutine[None, None, int], seconds: float | None, late: int) -> int:
    try:
        async with asyncio.timeout(seconds):
            return await watch
    except TimeoutError:
        return late


async def watching(
    access: Access,
    namespace: str,
    service: str,
    teller: Teller,
    *,
    once: bool,
    clock: Callable[[], float] = time.time,
) -> int:
    """Tell of every start of a Knative service's pods, for ever or, with `once`, until one is over; returns 0.

    Raises:
        ApiError: nothing can be seen, or there is no such service.
    """
    async with Api(access) as api:
        await _look(api, namespace, service, teller)
        watch = _Watch(api, namespace, teller, clock)
        wanted = (deployments(namespace, service), pods(namespace, service), events(namespace))
        running = asyncio.create_task(
            follow(api, (*wanted, slices(namespace, service)), watch.changed, watch.trouble, clock)
        )
        over = asyncio.create_task(watch.one_over.wait())
        try:
            await asyncio.wait({running, over} if once else {running}, return_when=asyncio.FIRST_COMPLETED)
            if running.done():
                running.result()
                raise Refused("nothing may be watched")
            return 0
        finally:
            await _end(running, over, *watch.tasks)


async def _look(api: Api, namespace: str, service: str, teller: Teller) -> None:
    """Whether there is such a service, in words that help."""
    path = deployments(namespace, service).path
    try:
        listed = await api.list(path, {"labelSelector": SERVICE})
    except Refused as error:
        teller.note(f"deployments: {error}; the decision is not seen, and seconds count from the pod's creation")
        return
    names = {item["metadata"]["labels"][SERVICE] for item in listed.items or [] if isinstance(item, dict)}
    if service not in names:
        there = ", ".join(sorted(names)) or "none"
        raise Refused(f"service: got {service!r}; Knative services with a revision in {namespace}: {there}")


async def _end(*tasks: "asyncio.Task[Any]") -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


class _Watch:
    """Puts changes, logs and timelines together, and tells of them."""

    def __init__(self, api: Api, namespace: str, teller: Teller, clock: Callable[[], float]) -> None:
        self.one_over = asyncio.Event()
        self.tasks: set[asyncio.Task[None]] = set()
        self._api = api
        self._namespace = namespace
        self._teller = teller
        self._clock = clock
        self._starts = Starts()
        self._decided: float | None = None
        self._reading: dict[str, asyncio.Task[None]] = {}  # by pod
        self._unseen: set[str] = set()  # resources that are refused
        self._noted: set[str] = set()

    def changed(self, change: Change) -> None:
        """An object has changed."""
        before = dict(self._starts.lives)
        for mark in self._starts.take(change):
            lives = (*self._starts.lives.values(), *before.values())
            life = next((life for life in lives if life.name == mark.pod), None)
            if mark.name == "decision":
                self._decided = mark.at
            if life is not None and change.listed and not life.watched:
                if mark.name == "pod":
                    self._teller.note(f"{life.name} was there before; it is no start to be told")
                continue
            self._tell(mark, life)
            if life is not None:
                self._after(mark, life)

    def trouble(self, resource: Resource, error: ApiError) -> None:
        """A watch has failed, for now or for good."""
        if isinstance(error, Refused):
            self._unseen.add(resource.name)
        self._note(f"{resource.name}: {error}")

    def _note(self, text: str) -> None:
        if text not in self._noted:
            self._noted.add(text)
            self._teller.note(text)

    def _tell(self, mark: Mark, life: Life | None) -> None:
        zero = life.chain[0].at if life is not None and life.chain else self._decided
        self._teller.mark(mark, mark.at if zero is None else zero)

    def _after(self, mark: Mark, life: Life) -> None:
        if mark.name == "started" and mark.container == life.pod.main and life.ready is None:
            self._reading[life.name] = self._do(self._read(life, mark.container))
        elif mark.name == ("ready" if "endpointslices" in self._unseen else "endpoint"):
            self._do(self._finish(life))

    def _do(self, work: Coroutine[None, None, None]) -> "asyncio.Task[None]":
        task = asyncio.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task

    async def _read(self, life: Life, container: str) -> None:
        """Follow the container's log until the process in it has given its first answer."""
        while True:
            try:
                if await self._heard(life, container):
                    return
            except Away:
                # Events are quicker than the kubelet's word that the container runs, without which there is no log.
                pass
            except ApiError as error:
                self._note(f"log: {error}; what goes on in the process, and its first answer, are not seen")
                return
            await asyncio.sleep(AGAIN)

    async def _heard(self, life: Life, container: str) -> bool:
        """Whether the first answer stood in the log, which has ended otherwise."""
        path = f"/api/v1/namespaces/{self._namespace}/pods/{life.name}/log"
        async with aclosing(self._api.lines(path, {"container": container, "follow": "true"}, None)) as lines:
            async for line in lines:
                said = process.of_log(line)
                if said is None:
                    continue
                if said.name == process.FIRST_ANSWER:
                    life.process = [*life.process, *process.of_answer(said)]
                    self._hear(said.name, said.at, life, said.text)
                    return True
                if not life.process:
                    life.process = await self._timeline(life, said)
                    for one in life.process:
                        self._hear(f"{one.process} {one.name}", one.at, life)
        return False

    async def _timeline(self, life: Life, ready: Said) -> list[timeline.Mark]:
        path = f"/api/v1/namespaces/{self._namespace}/pods/{life.name}:{PORT}/proxy/timeline"
        try:
            return process.of_timeline(await self._api.get(path, seconds=TIMELINE_SECONDS), ready.at)
        except (ApiError, ValueError) as error:
            self._note(f"timeline: {error}; of the process, only its log is known")
            return process.of_ready(ready)

    def _hear(self, name: str, at: float, life: Life, text: str = "") -> None:
        now = self._clock()
        mark = Mark(name=name, received=now, reported=at, resolution=0.0, pod=life.name, text=text)
        self._tell(mark, life)

    async def _finish(self, life: Life) -> None:
        """Wait for what the process still has to tell, then tell of the whole start."""
        reading = self._reading.pop(life.name, None)
        if reading is not None:
            await asyncio.wait({reading}, timeout=SETTLES)
            if life.process:
                await asyncio.wait({reading}, timeout=ANSWERS)
            reading.cancel()
        self._teller.start(life)
        self.one_over.set()
