"""What a run knows of a real cluster's service, by recordings of one, and by an API server on a socket."""

import asyncio

import pytest

from loadtest.cluster import Seen, Watched
from loadtest.deployments import NotAtZero
from loadtest.phases import join
from predictor.cluster.access import Access
from tests.cluster.api_server import Answer, Asked, Stream, api_server
from tests.cluster.recordings import changes


def seen(name: str) -> Seen:
    found = Seen()
    for change in changes(name):
        found.take(change)
    return found


def test_a_recorded_start_becomes_parts_that_add_up(sample):
    found = seen("plain")
    moments = found.start_after(0.0)
    names = [moment.name for moment in moments]
    assert names[0] == "decision"
    assert {"pod", "scheduled", "started", "ready"} <= set(names)
    began, ready = moments[0].at, next(m.at for m in moments if m.name == "ready")
    woke = sample(intended=began - 0.5, sent=began - 0.498, latency=ready - began + 1.0)
    start = join(woke, moments=moments)
    assert sum(part.seconds for part in start.parts) == pytest.approx(woke.latency)
    parts = {part.name: part for part in start.parts}
    assert parts["decision"].seconds == pytest.approx(0.498)
    assert parts["unexplained"].seconds > 0
    assert all(part.seconds >= 0 for part in start.parts)
    assert start.state.image == "present"
    # Both clocks are kept: when it was received, and what the cluster said.
    assert all(moment.reported is None or moment.received >= moment.reported - 1 for moment in start.moments)
    assert start.missing == [
        "the product's view: imports, weights and warm-up are in `unexplained`",
        "the stages of the request: making the picture is in `unexplained`",
    ]


def test_zero_is_when_neither_replicas_nor_pods_are_left():
    found, left = Seen(), []
    for change in changes("plain"):
        found.take(change)
        if not left or left[-1] != found.left:
            left.append(found.left)
    assert left[-1] == 0
    # While a pod ends, no replica is wanted and yet it is not zero.
    assert 2 in left
    assert left.count(1) >= 2
    (life,) = found.lives()
    assert life.ready is not None
    assert life.leaving is not None
    assert life.until is not None
    # No replica wants it any more when it is told to go, and it is there for a while.
    assert 0 < life.since < life.ready < life.leaving < life.until
    assert found.start_after(life.since) == []


def empty(asked: Asked) -> Answer:
    """A service with a deployment that wants nothing, and no pods."""
    deployment = {"metadata": {"name": "d", "uid": "1", "resourceVersion": "1"}, "spec": {"replicas": 0}}
    if asked.query.get("watch"):
        return Stream()
    return 200, {
        "metadata": {"resourceVersion": "1"},
        "items": [deployment] if asked.resource == "deployments" else [],
    }


async def test_a_service_at_zero_is_seen_to_be():
    def look(access: Access) -> str:
        with Watched(access, "demo", "shapes-predictor") as watched:
            words = watched.wait_for_zero(30.0)
            assert watched.lives() == []
            assert watched.start_after(0.0) == []
        return words

    async with api_server(empty) as api:
        words = await asyncio.to_thread(look, api.access())
    assert words == "seen: no replica is wanted and no pod is left"
    assert all("shapes-predictor" in str(query) for query in api.paths("pods"))


async def test_a_cluster_that_refuses_to_tell_is_not_at_zero():
    def look(access: Access) -> None:
        with Watched(access, "demo", "secret") as watched:
            watched.wait_for_zero(30.0)

    async with api_server(lambda _: (403, {"message": "pods is forbidden"})) as api:
        with pytest.raises(NotAtZero, match=r"demo/secret: .*forbidden"):
            await asyncio.to_thread(look, api.access())


def test_a_cluster_that_does_not_answer_is_not_at_zero():
    with (
        Watched(Access("http://127.0.0.1:9", True, lambda: None), "demo", "nobody") as watched,
        pytest.raises(NotAtZero, match=r"demo/nobody: no such Knative service after 0.2 s"),
    ):
        watched.wait_for_zero(0.2)


def test_a_watch_that_breaks_is_not_waited_for():
    def expired() -> str:
        raise RuntimeError("the token has expired")

    with (
        Watched(Access("http://127.0.0.1:9", True, expired), "demo", "nobody") as watched,
        pytest.raises(NotAtZero, match=r"demo/nobody: nobody watches any more: .*the token has expired"),
    ):
        watched.wait_for_zero(60.0)
