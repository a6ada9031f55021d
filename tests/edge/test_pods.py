import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

import pytest
from structlog.testing import capture_logs

from predictor.cluster.access import NoAccess
from predictor.edge.pods import Pods
from predictor.edge.wake import Watch
from tests.cluster.api_server import ApiServer, Asked, Stream, api_server, event, listing, pod, status

WORDS = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."
UNSCHEDULABLE = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": WORDS}
SCHEDULED = {"type": "PodScheduled", "status": "True", "lastTransitionTime": "2026-01-02T03:04:06Z"}
READY = {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-02T03:04:09Z"}
PULLING = {
    "type": "Normal",
    "reason": "Pulling",
    "involvedObject": {"kind": "Pod", "name": "pod-a", "uid": "a", "fieldPath": "spec.containers{main}"},
}


class Cluster:
    """Pods and events of an API server, sent when a test wants them."""

    def __init__(self) -> None:
        self.pods, self.events = Stream(), Stream()

    def __call__(self, asked: Asked) -> object:
        if not asked.query.get("watch"):
            return listing("1")
        return self.pods if asked.resource == "pods" else self.events


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@contextlib.asynccontextmanager
async def watched(server: ApiServer, watch: Watch, clock: Callable[[], float]) -> AsyncIterator[Pods]:
    pods = Pods("shop/sd-predictor", watch, clock, server.access)
    running = asyncio.create_task(pods.run())
    try:
        yield pods
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def reports(pods: Pods, phase: str) -> dict[str, object]:
    """What it says once it says that."""
    async with asyncio.timeout(20):
        while (said := pods.report("unreachable"))["phase"] != phase:  # noqa: ASYNC110  # nothing tells when
            await asyncio.sleep(0.01)
    return said


async def test_who_waits_is_told_what_the_start_waits_for():
    cluster, watch = Cluster(), Watch(60, 30)
    async with api_server(cluster) as server, watched(server, watch, Clock()) as pods:
        assert pods.report("unreachable") == {"phase": "unreachable"}
        cluster.pods.send(event("ADDED", pod("a", "2")))
        await reports(pods, "scheduling")
        cluster.pods.send(event("MODIFIED", pod("a", "3", conditions=[UNSCHEDULABLE])))
        assert await reports(pods, "waiting_for_capacity") == {"phase": "waiting_for_capacity", "detail": WORDS}
        cluster.pods.send(event("MODIFIED", pod("a", "4", conditions=[SCHEDULED])))
        await reports(pods, "preparing")
        cluster.events.send(event("ADDED", PULLING))
        assert await reports(pods, "pulling_image") == {"phase": "pulling_image"}
        # What the process itself says is closer to the truth.
        assert pods.report("weights_read") == {"phase": "weights_read"}
        secret = {"name": "main", "state": {"waiting": {"reason": "ErrImagePull", "message": "registry.internal/x"}}}
        cluster.pods.send(event("MODIFIED", pod("a", "5", conditions=[SCHEDULED], containerStatuses=[secret])))
        assert await reports(pods, "image_error") == {"phase": "image_error"}
        cluster.pods.send(event("MODIFIED", pod("a", "6", conditions=[SCHEDULED, READY])))
        await reports(pods, "unreachable")
        assert {asked.path for asked in server.asked} == {
            "/api/v1/namespaces/shop/pods",
            "/api/v1/namespaces/shop/events",
        }


async def test_the_estimate_stands_still_while_no_machine_is_free():
    cluster, clock, watch = Cluster(), Clock(), Watch(60, 30)
    watch.sent(clock.now)
    async with api_server(cluster) as server, watched(server, watch, clock) as pods:
        clock.now += 10
        cluster.pods.send(event("ADDED", pod("a", "3", conditions=[UNSCHEDULABLE])))
        await reports(pods, "waiting_for_capacity")
        assert watch.waits_for_start(clock.now) == 20
        clock.now += 500
        assert watch.waits_for_start(clock.now) == 20
        cluster.pods.send(event("MODIFIED", pod("a", "4", conditions=[SCHEDULED])))
        await reports(pods, "preparing")
        clock.now += 5
        assert watch.waits_for_start(clock.now) == 15


async def test_without_the_right_one_line_says_so_and_estimates_are_as_before():
    watch = Watch(60, 30)
    watch.sent(0)
    with capture_logs() as lines:
        async with api_server(lambda asked: status(403, f"{asked.resource} is forbidden")) as server:
            pods = Pods("shop/sd-predictor", watch, Clock(), server.access)
            async with asyncio.timeout(20):
                await pods.run()
    (line,) = lines
    assert line["log_level"] == "warning"
    assert "is forbidden" in line["said"]
    assert pods.report("starting") == {"phase": "starting"}
    assert watch.waits_for_start(10) == 20


async def test_without_an_account_one_line_says_so():
    def nowhere():
        raise NoAccess("this process does not run in a pod")

    with capture_logs() as lines:
        await Pods("shop/sd-predictor", Watch(60, 30), Clock(), nowhere).run()
    assert [line["said"] for line in lines] == ["this process does not run in a pod"]


async def test_nothing_is_watched_where_nobody_wants_it():
    def never():
        pytest.fail("asked for access")

    with capture_logs() as lines:
        await Pods("", Watch(60, 30), Clock(), never).run()
    assert lines == []


async def test_a_server_that_goes_and_comes_is_told_once_each_time():
    cluster = Cluster()
    answers = [status(500, "etcd")] * 3

    def answer(asked: Asked) -> object:
        return answers.pop() if answers and asked.resource == "pods" else cluster(asked)

    with capture_logs() as lines:
        async with api_server(answer) as server, watched(server, Watch(60, 30), Clock()) as pods:
            cluster.pods.send(event("ADDED", pod("a", "2")))
            await reports(pods, "scheduling")
    assert len(lines) == 1
