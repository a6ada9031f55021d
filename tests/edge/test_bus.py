"""Events from publishers to followers, in one process and through a real Redis."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import aclosing

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from predictor.edge import bus as buses
from predictor.edge.bus import KEPT, Bus, Event, MemoryBus, Ring, position
from predictor.edge.redis.bus import RedisBus
from predictor.edge.redis.link import RedisLink
from tests.processes import wait_until

_names = itertools.count()


class Failures:
    count = 0

    def __call__(self) -> None:
        self.count += 1


@pytest.fixture
def topic() -> str:
    return f"gen_{next(_names)}"


@pytest.fixture
async def link(redis) -> AsyncIterator[RedisLink]:
    link = RedisLink(redis.url)
    yield link
    await link.close()


@pytest.fixture(params=["memory", "redis"])
async def bus(request: pytest.FixtureRequest) -> AsyncIterator[Bus]:
    if request.param == "memory":
        bus: Bus = MemoryBus()
        yield bus
    else:
        link = RedisLink(request.getfixturevalue("redis").url)
        bus = RedisBus(link, Failures())
        yield bus
    before = asyncio.all_tasks()
    await bus.aclose()
    if request.param == "redis":
        await link.close()
    assert {task for task in asyncio.all_tasks() if task is not asyncio.current_task()} <= before - {
        task for task in before if "_read_notes" in repr(task)
    }


def steps(events: list[Event]) -> list[int]:
    return [msgspec.json.decode(event.data)["step"] for event in events]


async def told(bus: Bus, topic: str, count: int, after: str | None = None) -> list[Event]:
    """The next `count` events."""
    events = []
    async with asyncio.timeout(20), aclosing(bus.follow(topic, after)) as following:
        async for event in following:
            if event is not None:
                events.append(event)
            if len(events) == count:
                break
    return events


async def silent(bus: Bus, topic: str, after: str | None = None) -> bool:
    """Whether the first thing that comes is a second of silence."""
    async with asyncio.timeout(20), aclosing(bus.follow(topic, after)) as following:
        return await anext(following) is None


async def publish(bus: Bus, topic: str, numbers: range) -> None:
    for number in numbers:
        await bus.publish(topic, "progress", {"step": number, "steps": len(numbers)})


async def test_a_follower_sees_what_was_before_and_what_comes(bus: Bus, topic: str) -> None:
    await publish(bus, topic, range(3))
    async with asyncio.timeout(20), aclosing(bus.follow(topic, None)) as following:
        events = [await anext(following) for _ in range(3)]
        await publish(bus, topic, range(3, 6))
        while len(events) < 6:
            if (event := await anext(following)) is not None:
                events.append(event)
    assert steps(events) == list(range(6))
    assert [event.name for event in events] == ["progress"] * 6
    assert msgspec.json.decode(events[0].data) == {"step": 0, "steps": 3}
    ids = [position(event.id) for event in events]
    assert ids == sorted(set(ids))


async def test_a_follower_that_lost_its_connection_resumes_after_the_last_id(bus: Bus, topic: str) -> None:
    await publish(bus, topic, range(6))
    seen = await told(bus, topic, 6)
    for number, event in enumerate(seen[:-1]):
        assert await told(bus, topic, 5 - number, event.id) == seen[number + 1 :]
    assert await silent(bus, topic, seen[-1].id)


@pytest.mark.parametrize("after", ["", "0", "nonsense", "1-1-1", "-1-0", "٣-٣", "9" * 5000 + "-1"])
async def test_an_id_that_is_none_is_taken_for_none(bus: Bus, topic: str, after: str) -> None:
    await publish(bus, topic, range(2))
    assert steps(await told(bus, topic, 2, after)) == [0, 1]


async def test_silence_is_told_every_second(bus: Bus, topic: str) -> None:
    async with asyncio.timeout(20), aclosing(bus.follow(topic, None)) as following:
        assert [await anext(following) for _ in range(2)] == [None, None]
        await bus.publish(topic, "ended", {"state": "done"})
        while (event := await anext(following)) is None:
            pass
        assert event.name == "ended"


async def test_topics_do_not_mix(bus: Bus, topic: str) -> None:
    await publish(bus, topic, range(2))
    await publish(bus, f"{topic}x", range(5, 7))
    assert steps(await told(bus, topic, 2)) == [0, 1]
    assert steps(await told(bus, f"{topic}x", 2)) == [5, 6]


async def test_the_latest_are_kept(bus: Bus, topic: str) -> None:
    await publish(bus, topic, range(KEPT + 50))
    assert steps(await told(bus, topic, KEPT)) == list(range(50, KEPT + 50))


async def test_after_close_followers_still_read_what_there_is(bus: Bus, topic: str) -> None:
    await publish(bus, topic, range(2))
    await bus.close(topic)
    await bus.close(f"{topic}-that-never-was")
    assert steps(await told(bus, topic, 2)) == [0, 1]


async def test_the_end_of_the_bus_ends_every_iteration(bus: Bus, topic: str) -> None:
    async def everything() -> list[Event | None]:
        return [event async for event in bus.follow(topic, None)]

    tasks = [asyncio.create_task(everything()) for _ in range(10)]
    await publish(bus, topic, range(1))
    await told(bus, topic, 1)
    await bus.aclose()
    for events in await asyncio.wait_for(asyncio.gather(*tasks), 20):
        assert steps([event for event in events if event is not None]) in ([0], [])
    assert [event async for event in bus.follow(topic, None)] == []


async def test_a_follower_that_leaves_takes_nothing_from_the_others(bus: Bus, topic: str) -> None:
    leaver = asyncio.create_task(told(bus, topic, 100))
    stayer = asyncio.create_task(told(bus, topic, 3))
    await publish(bus, topic, range(1))
    await told(bus, topic, 1)
    leaver.cancel()
    await asyncio.gather(leaver, return_exceptions=True)
    await publish(bus, topic, range(1, 3))
    assert steps(await stayer) == [0, 1, 2]


async def test_two_thousand_clients_wait_for_one_predictor() -> None:
    bus = MemoryBus()
    followers = [asyncio.create_task(told(bus, f"gen_{number % 1000}", 5)) for number in range(2000)]
    for number in range(5):
        for name in range(1000):
            await bus.publish(f"gen_{name}", "progress", {"step": number})
        await asyncio.sleep(0)
    assert all(steps(events) == list(range(5)) for events in await asyncio.gather(*followers))
    await bus.aclose()


async def test_a_slow_follower_misses_the_oldest_and_nothing_else() -> None:
    bus = MemoryBus()
    async with aclosing(bus.follow("gen", None)) as following:
        await bus.publish("gen", "progress", {"step": 0})
        first = await anext(following)
        await publish(bus, "gen", range(1, KEPT + 11))
        rest = [await anext(following) for _ in range(KEPT)]
    assert steps([first, *rest]) == [0, *range(11, KEPT + 11)]
    await bus.aclose()


async def test_memory_forgets_topics(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(buses, "QUIET", 0.02)
    monkeypatch.setattr(buses, "CLOSED", 0.01)
    bus = MemoryBus()
    async with aclosing(bus.follow("followed", None)) as following:
        for topic in ("followed", "closed", "quiet"):
            await bus.publish(topic, "progress", {"step": 1})
        await bus.close("closed")
        assert await anext(following) is not None
        assert await silent(bus, "never-published")  # a follower alone leaves nothing behind
        assert len(bus) == 1  # nobody pulls away a topic from under a follower
    await asyncio.to_thread(wait_until, lambda: len(bus) == 0)
    await bus.aclose()


@given(
    st.lists(st.integers(0, 3), max_size=30).map(lambda gaps: list(itertools.accumulate(gaps))),
    st.integers(0, 90),
)
async def test_a_ring_gives_everything_after_an_id(milliseconds: list[int], after: int) -> None:
    ring = Ring()
    ids = [f"{at}-{number}" for number, at in enumerate(milliseconds)]
    for id in ids:
        ring.add(Event(id, "progress", b"{}"))
    expected = [id for id in ids if position(id) > (after, 5)]
    async with aclosing(ring.events(f"{after}-5")) as events:
        assert [(await anext(events)).id for _ in expected] == expected


async def test_followers_in_another_edge_see_it(redis, link: RedisLink, topic: str) -> None:
    other = RedisLink(redis.url)
    here, there = RedisBus(link, Failures()), RedisBus(other, Failures())
    following = asyncio.create_task(told(there, topic, 50))
    resumed = asyncio.create_task(told(here, topic, 50))
    await publish(here, topic, range(25))
    await publish(there, topic, range(25, 50))
    assert steps(await following) == list(range(50))
    assert await following == await resumed  # the same ids: a client may resume at any edge
    await here.aclose()
    await there.aclose()
    await other.close()


async def test_hundreds_of_followers_share_one_blocking_connection(redis, link: RedisLink) -> None:
    bus, topics = RedisBus(link, Failures()), [f"gen_{next(_names)}" for _ in range(100)]
    followers = [asyncio.create_task(told(bus, topics[number % 100], 3)) for number in range(400)]
    most = 0
    for number in range(3):
        for topic in topics:
            await bus.publish(topic, "progress", {"step": number})
        clients = redis.ask("CLIENT", "LIST").splitlines()
        most = max(most, sum("cmd=xread" in client for client in clients))
        assert len(clients) <= 40  # those of this bus and of its link, and the one that asks
    assert all(steps(events) == [0, 1, 2] for events in await asyncio.gather(*followers))
    assert most <= 1
    await bus.aclose()


async def test_without_followers_redis_is_left_alone(redis, link: RedisLink, topic: str) -> None:
    bus = RedisBus(link, Failures())
    await publish(bus, topic, range(1))
    assert len(await told(bus, topic, 1)) == 1
    await asyncio.to_thread(wait_until, lambda: "cmd=xread" not in redis.ask("CLIENT", "LIST"))
    assert bus._reader is not None
    await asyncio.wait_for(bus._reader, 20)
    await bus.aclose()


async def test_redis_forgets_topics(redis, link: RedisLink, topic: str) -> None:
    bus = RedisBus(link, Failures())
    await publish(bus, topic, range(1))
    assert 590 <= int(redis.ask("TTL", f"sdzero:events:{topic}").strip(":\r\n")) <= 600
    await bus.close(topic)
    assert int(redis.ask("TTL", f"sdzero:events:{topic}").strip(":\r\n")) <= 60
    await bus.aclose()


@pytest.mark.parametrize("how", ["kill", "stop"])
async def test_followers_live_through_a_restart_of_redis(redis, link: RedisLink, topic: str, how: str) -> None:
    failures = Failures()
    bus = RedisBus(link, failures)
    await publish(bus, topic, range(3))
    async with asyncio.timeout(60), aclosing(bus.follow(topic, None)) as following:
        assert steps([await anext(following) for _ in range(3)]) == [0, 1, 2]
        getattr(redis, how)()
        try:
            await publish(bus, topic, range(3, 6))
            assert failures.count == 3
            assert await anext(following) is None
            assert await silent(bus, f"{topic}-new")
        finally:
            redis.start()
        lost = failures.count
        number, event = 6, None
        while event is None:
            await bus.publish(topic, "progress", {"step": number})
            number += 1
            event = await anext(following)
        assert steps([event])[0] >= 6
        assert failures.count - lost < number  # the rest came through
    await bus.aclose()


def break_reader(redis) -> bool:
    """Close the connection that blocks on the notes, if there is one now."""
    for client in redis.ask("CLIENT", "LIST").splitlines():
        if "cmd=xread " in client:
            return redis.ask("CLIENT", "KILL", "ID", client.split()[0].removeprefix("id=")) == ":1\r\n"
    return False


async def test_a_broken_connection_loses_nothing(redis, link: RedisLink, topic: str) -> None:
    bus = RedisBus(link, Failures())
    following = asyncio.create_task(told(bus, topic, 30))
    for number in range(30):
        if number % 10 == 5:
            await asyncio.to_thread(wait_until, lambda: break_reader(redis))
        await bus.publish(topic, "progress", {"step": number})
    assert steps(await following) == list(range(30))
    await bus.aclose()


async def test_while_redis_is_away_the_reader_does_not_spin(
    redis, link: RedisLink, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bus = RedisBus(link, Failures())
    tries = 0
    read = bus._notes.xrevrange

    async def counted(*arguments: object, **more: object) -> object:
        nonlocal tries
        tries += 1
        return await read(*arguments, **more)

    monkeypatch.setattr(bus._notes, "xrevrange", counted)
    redis.kill()
    try:
        async with aclosing(bus.follow(topic, None)) as following:
            assert [await anext(following) for _ in range(3)] == [None] * 3
    finally:
        redis.start()
    assert 1 <= tries <= 5  # one a second; a loop without a pause makes thousands
    await bus.aclose()
