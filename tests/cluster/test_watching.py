import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence

import pytest

from predictor.cluster.api import Api, ApiError, Refused
from predictor.cluster.phases import Change
from predictor.cluster.watching import Resource, events, follow, pods
from tests.cluster.api_server import CUT, END, ApiServer, Asked, Stream, api_server, event, listing, pod, status

BOOKMARK = {"metadata": {"resourceVersion": "50", "creationTimestamp": None}, "spec": {"containers": None}}


class Seen:
    """What `follow` has told, and a way to wait for it."""

    def __init__(self) -> None:
        self.changes: list[Change] = []
        self.troubles: list[tuple[str, ApiError]] = []
        self._news = asyncio.Event()

    def tell(self, change: Change) -> None:
        self.changes.append(change)
        self._news.set()

    def trouble(self, resource: Resource, error: ApiError) -> None:
        self.troubles.append((resource.name, error))
        self._news.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not condition():
                self._news.clear()
                await self._news.wait()

    def told(self) -> list[tuple[str, bool, bool]]:
        return [(change.object.metadata.uid, change.listed, change.deleted) for change in self.changes]


@contextlib.asynccontextmanager
async def followed(api: ApiServer, resources: Sequence[Resource], token: str | None = None) -> AsyncIterator[Seen]:
    seen = Seen()
    async with Api(api.access(token)) as client:
        following = asyncio.create_task(follow(client, resources, seen.tell, seen.trouble, lambda: 1000.0))
        try:
            yield seen
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)


def scripted(lists: Sequence[object], watches: Sequence[object]) -> Callable[[Asked], object]:
    """Answers one list and one watch after the other; what comes after the last waits for ever."""
    left = {False: iter(lists), True: iter(watches)}
    return lambda asked: next(left[asked.query.get("watch") == "1"], None) or Stream()


async def test_a_list_and_then_every_change_from_its_version_on():
    watch = Stream()
    watch.send(event("MODIFIED", pod("a", "11")), event("ADDED", pod("b", "12")), event("DELETED", pod("a", "13")))
    async with (
        api_server(scripted([listing("10", pod("a", "9"))], [watch])) as api,
        followed(api, [pods("ns", "svc")], token="Bearer secret") as seen,
    ):
        await seen.until(lambda: len(seen.changes) == 4)
        assert seen.told() == [("a", True, False), ("a", False, False), ("b", False, False), ("a", False, True)]
        assert all(change.received == 1000.0 for change in seen.changes)
        first, second = api.asked
        assert first.path == second.path == "/api/v1/namespaces/ns/pods"
        assert first.query == {"labelSelector": "serving.knative.dev/service=svc"}
        assert second.query["resourceVersion"] == "10"
        assert second.query["allowWatchBookmarks"] == "true"
        assert first.headers["authorization"] == "Bearer secret"
        assert seen.troubles == []


async def test_lines_may_come_in_any_pieces():
    watch = Stream()
    text = b'{"type":"ADDED","object":{"metadata":{"uid":"\xc3\xa9","name":"x"}}}\n'
    watch.send(*(text[i : i + 1] for i in range(len(text))), b'{"type":"ADDED","object":{"metadata":{"uid":"c"}}}\n')
    async with api_server(scripted([listing("1")], [watch])) as api, followed(api, [pods("ns", "svc")]) as seen:
        await seen.until(lambda: len(seen.changes) == 2)
        assert [uid for uid, *_ in seen.told()] == ["é", "c"]


async def test_a_watch_goes_on_where_it_ended_and_bookmarks_move_that_on():
    first, second = Stream(), Stream()
    first.send(event("ADDED", pod("a", "11")), event("BOOKMARK", BOOKMARK), END)
    second.send(event("ADDED", pod("b", "51")))
    async with (
        api_server(scripted([listing("10")], [first, second])) as api,
        followed(api, [pods("ns", "svc")]) as seen,
    ):
        await seen.until(lambda: len(seen.changes) == 2)
        assert [query.get("resourceVersion") for query in api.paths("pods")] == [None, "10", "50"]
        assert seen.troubles == []


@pytest.mark.parametrize("how", ["event", "status"])
async def test_a_version_that_the_server_has_forgotten_is_listed_again_and_what_has_gone_meanwhile_is_told(how):
    gone = Stream()
    gone.send(event("ERROR", status(410, "too old resource version")[1]), END)
    after = Stream()
    after.send(event("ADDED", pod("c", "101")))
    lists = [listing("10", pod("a", "9"), pod("b", "9")), listing("100", pod("b", "9"))]
    watches = [gone if how == "event" else status(410, "too old resource version"), after]
    async with api_server(scripted(lists, watches)) as api, followed(api, [pods("ns", "svc")]) as seen:
        await seen.until(lambda: len(seen.changes) == 5)
        assert seen.told() == [
            ("a", True, False),
            ("b", True, False),
            ("b", True, False),
            ("a", False, True),
            ("c", False, False),
        ]
        assert seen.troubles == []


async def test_a_connection_cut_in_the_middle_of_a_line_loses_nothing():
    cut, after = Stream(), Stream()
    cut.send(event("ADDED", pod("a", "11")), CUT)
    after.send(event("MODIFIED", pod("a", "12")))
    async with (
        api_server(scripted([listing("10")], [cut, after])) as api,
        followed(api, [pods("ns", "svc")]) as seen,
    ):
        await seen.until(lambda: len(seen.changes) == 2)
        assert api.paths("pods")[-1]["resourceVersion"] == "11"
        assert len(seen.troubles) == 1


@pytest.mark.parametrize(
    "failure", [status(500, "etcd"), status(429, "later"), (200, "nonsense"), (200, {"items": [{"metadata": 5}]})]
)
async def test_what_may_pass_is_tried_again(failure):
    async with (
        api_server(scripted([failure, failure, listing("1", pod("a", "1"))], [])) as api,
        followed(api, [pods("ns", "svc")]) as seen,
    ):
        await seen.until(lambda: len(seen.changes) == 1)
        assert len(seen.troubles) == 2
        assert not any(isinstance(error, Refused) for _, error in seen.troubles)


async def test_one_resource_that_may_not_be_read_does_not_stop_the_others():
    def answer(asked: Asked) -> object:
        if asked.resource == "events":
            return status(403, 'events is forbidden: User "x" cannot list resource "events"')
        return Stream() if asked.query.get("watch") else listing("1", pod("a", "1"))

    async with api_server(answer) as api, followed(api, [pods("ns", "svc"), events("ns")]) as seen:
        await seen.until(lambda: bool(seen.changes and seen.troubles))
        ((name, error),) = seen.troubles
        assert name == "events"
        assert str(error) == '403: events is forbidden: User "x" cannot list resource "events"'
        assert len(api.paths("events")) == 1
        assert api.paths("events") == [{"fieldSelector": "involvedObject.kind=Pod"}]


async def test_it_ends_when_nothing_may_be_read():
    seen = Seen()
    async with api_server(lambda asked: status(401, "Unauthorized")) as api, Api(api.access()) as client:
        await follow(client, [pods("ns", "svc"), events("ns")], seen.tell, seen.trouble, lambda: 0.0)
    assert [name for name, _ in seen.troubles] == ["pods", "events"]


async def test_a_server_that_is_not_there_is_awaited():
    async with api_server(lambda asked: listing("1", pod("a", "1"))) as api:
        access = api.access()
    seen = Seen()
    async with Api(access) as client:
        following = asyncio.create_task(follow(client, [pods("ns", "svc")], seen.tell, seen.trouble, lambda: 0.0))
        await seen.until(lambda: len(seen.troubles) == 2)
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
    assert "no connection" in str(seen.troubles[0][1])
