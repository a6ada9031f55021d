"""Moving windows: one property for both stores."""

import itertools
from collections.abc import AsyncIterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from predictor.edge.redis.link import RedisLink
from predictor.edge.redis.windows import RedisWindows
from predictor.edge.stores.windows import GRAINS, MemoryWindows, Windows

SECONDS = 60
GRAIN = SECONDS / GRAINS
LIMIT = 100
BEGIN = 1_700_000_000.0
SLACK = 1e-4  # floats of this size are exact to a quarter of a microsecond

_names = itertools.count()


@pytest.fixture(params=["memory", "redis"])
async def windows(request: pytest.FixtureRequest) -> AsyncIterator[Windows]:
    store = (
        MemoryWindows() if request.param == "memory" else RedisWindows(RedisLink(request.getfixturevalue("redis").url))
    )
    yield store
    await store.close()


steps = st.lists(
    st.tuples(
        st.one_of(st.floats(0, 0.3), st.floats(0, 20), st.sampled_from([0.0, GRAIN, SECONDS, SECONDS + GRAIN, 200.0])),
        st.integers(1, LIMIT),
        st.booleans(),
    ),
    max_size=40,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=steps)
async def test_no_window_holds_more_than_the_limit_and_none_refuses_what_fits(windows, steps) -> None:
    key, now = f"key{next(_names)}", BEGIN
    spent: list[tuple[float, int]] = []
    for pause, cost, given_back in steps:
        now = round(now + pause, 6)
        foreseen = await windows.wait(key, cost, LIMIT, SECONDS, now)
        wait = await windows.spend(key, cost, LIMIT, SECONDS, now)
        assert wait == foreseen
        if wait:
            nearly = sum(amount for at, amount in spent if at > now - SECONDS - GRAIN - SLACK)
            assert nearly + cost > LIMIT
            assert wait <= SECONDS + GRAIN
        elif given_back:
            await windows.give_back(key, cost, SECONDS)
        else:
            spent.append((now, cost))
            assert sum(amount for at, amount in spent if at > now - SECONDS + SLACK) <= LIMIT


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=steps, cost=st.integers(1, LIMIT))
async def test_after_the_wait_it_passes_and_a_moment_sooner_it_does_not(windows, steps, cost) -> None:
    key, now = f"key{next(_names)}", BEGIN
    for pause, amount, _ in steps:
        now = round(now + pause, 6)
        await windows.spend(key, amount, LIMIT, SECONDS, now)
    if wait := await windows.spend(key, cost, LIMIT, SECONDS, now):
        assert await windows.spend(key, cost, LIMIT, SECONDS, now + wait - SLACK) > 0
        assert await windows.spend(key, cost, LIMIT, SECONDS, now + wait + SLACK) == 0.0


async def test_what_is_given_back_can_be_spent_again(windows) -> None:
    key = f"key{next(_names)}"
    assert await windows.spend(key, 60, LIMIT, SECONDS, BEGIN) == 0.0
    assert await windows.spend(key, 40, LIMIT, SECONDS, BEGIN + 30) == 0.0
    await windows.give_back(key, 40, SECONDS)
    assert await windows.spend(key, 41, LIMIT, SECONDS, BEGIN + 30) > 0
    assert await windows.spend(key, 40, LIMIT, SECONDS, BEGIN + 30) == 0.0


async def test_giving_back_more_than_was_spent_makes_no_credit(windows) -> None:
    key = f"key{next(_names)}"
    await windows.spend(key, 10, LIMIT, SECONDS, BEGIN)
    await windows.give_back(key, 50, SECONDS)
    assert await windows.spend(key, LIMIT, LIMIT, SECONDS, BEGIN) == 0.0
    assert await windows.spend(key, 1, LIMIT, SECONDS, BEGIN) > 0


async def test_keys_and_lengths_do_not_share(windows) -> None:
    key, other = f"key{next(_names)}", f"key{next(_names)}"
    assert await windows.spend(key, LIMIT, LIMIT, SECONDS, BEGIN) == 0.0
    assert await windows.spend(other, LIMIT, LIMIT, SECONDS, BEGIN) == 0.0
    assert await windows.spend(key, LIMIT, LIMIT, 3600, BEGIN) == 0.0


async def test_units_of_the_largest_limit_are_exact(windows) -> None:
    """A limit of 2^40 megapixel-steps, in pixel-steps."""
    key, limit = f"key{next(_names)}", 2**40 * 1_000_000
    cost = 8192 * 8192 * 150 * 64 + 1
    for _ in range(3):
        assert await windows.spend(key, cost, limit, SECONDS, BEGIN) == 0.0
    assert await windows.spend(key, 1, 3 * cost, SECONDS, BEGIN) > 0
    assert await windows.spend(key, 1, 3 * cost + 1, SECONDS, BEGIN) == 0.0


async def test_a_limit_that_was_lowered_counts_what_is_already_spent(windows) -> None:
    key = f"key{next(_names)}"
    await windows.spend(key, 90, LIMIT, SECONDS, BEGIN)
    await windows.spend(key, 8, LIMIT, SECONDS, BEGIN + 30)
    wait = await windows.spend(key, 5, 10, SECONDS, BEGIN + 30)
    assert wait == pytest.approx(SECONDS, abs=2 * GRAIN)


async def test_a_window_takes_no_more_room_however_often_is_spent(redis) -> None:
    windows = RedisWindows(RedisLink(redis.url))
    for charge in range(3000):
        assert await windows.spend("room", 1, 10**9, SECONDS, BEGIN + charge / 100) == 0.0
    assert redis.ask("HLEN", "sdzero:spent:60:room") == ":300\r\n"
    assert redis.ask("TTL", "sdzero:spent:60:room").strip() in (":60", ":61")
    await windows.close()


async def test_memory_forgets_windows_in_which_nothing_is_left() -> None:
    windows = MemoryWindows()
    for key in range(1000):
        await windows.spend(f"key{key}", 1, LIMIT, SECONDS, BEGIN)
    await windows.spend("last", 1, LIMIT, SECONDS, BEGIN + 2 * SECONDS)
    assert len(windows) == 1
