"""Quotas of keys and of addresses, in memory and in a real Redis."""

import asyncio
import itertools
from collections.abc import AsyncIterator

import pytest

from predictor.core.account import Caller, Limits
from predictor.core.problems import Forbidden, QuotaExceeded, StoreUnavailable, WakeRefused
from predictor.edge.redis.link import RedisLink
from predictor.edge.redis.windows import RedisWindows
from predictor.edge.stores.quotas import GUESSES, Quotas
from predictor.edge.stores.windows import MemoryWindows

NOW = 1_700_000_000.0
_names = itertools.count()


def opened_at(url, failure, failed):
    return Quotas(RedisWindows(RedisLink(url)) if url else MemoryWindows(), failure, failed)


def caller(**limits: int) -> Caller:
    return Caller(
        key_id=f"key_{next(_names)}", tenant="tenant", scopes=frozenset({"generate"}), limits=Limits(**limits)
    )


class Failures:
    count = 0

    def __call__(self) -> None:
        self.count += 1


@pytest.fixture(params=["memory", "redis"])
async def quotas(request: pytest.FixtureRequest) -> AsyncIterator[Quotas]:
    url = request.getfixturevalue("redis").url if request.param == "redis" else ""
    quotas = opened_at(url, "closed", Failures())
    yield quotas
    await quotas.close()


async def test_a_minute_is_spent_and_the_problem_says_how_long_to_wait(quotas: Quotas) -> None:
    one = caller(megapixel_steps_per_minute=20)
    await quotas.charge(one, 7.864320, NOW)
    await quotas.charge(one, 7.864320, NOW + 10)
    with pytest.raises(QuotaExceeded) as refused:
        await quotas.charge(one, 7.864320, NOW + 20)
    assert refused.value.retry_after == pytest.approx(40, abs=0.3)
    assert "7.86432" in refused.value.message
    assert "20 in a minute" in refused.value.message
    await quotas.charge(one, 4.271360, NOW + 20)  # exactly what is left
    with pytest.raises(QuotaExceeded):
        await quotas.charge(one, 0.000001, NOW + 20)
    await quotas.charge(one, 7.864320, NOW + 61)


async def test_by_its_own_clock_a_quota_runs_out_too(quotas: Quotas) -> None:
    one = caller(megapixel_steps_per_minute=10)
    await quotas.charge(one, 10.0)
    with pytest.raises(QuotaExceeded) as refused:
        await quotas.charge(one, 1.0)
    assert refused.value.retry_after is not None
    assert 0 < refused.value.retry_after <= 60.2


async def test_costs_are_added_without_rounding(quotas: Quotas) -> None:
    one = caller(megapixel_steps_per_minute=1)
    for _ in range(10):
        await quotas.charge(one, 0.1, NOW)
    with pytest.raises(QuotaExceeded):
        await quotas.charge(one, 0.000064, NOW)


async def test_a_cost_above_the_whole_limit_is_no_matter_of_waiting(quotas: Quotas) -> None:
    one = caller(megapixel_steps_per_minute=10)
    with pytest.raises(Forbidden, match=r"got a request of 10\.5; allowed: 10 in a minute") as refused:
        await quotas.charge(one, 10.5, NOW)
    assert not refused.value.retryable
    assert refused.value.retry_after is None
    await quotas.charge(one, 10.0, NOW)  # and nothing was spent


async def test_no_limit_and_no_cost_spend_nothing(quotas: Quotas) -> None:
    for _ in range(3):
        await quotas.charge(caller(), 1e9, NOW)
    one = caller(megapixel_steps_per_minute=1)
    await quotas.charge(one, 1.0, NOW)
    await quotas.charge(one, 0.0, NOW)


async def test_a_refund_can_be_spent_again(quotas: Quotas) -> None:
    one = caller(megapixel_steps_per_minute=10)
    await quotas.charge(one, 6.0, NOW)
    await quotas.charge(one, 4.0, NOW)
    await quotas.refund(one, 4.0)
    await quotas.charge(one, 4.0, NOW)
    with pytest.raises(QuotaExceeded):
        await quotas.charge(one, 0.5, NOW)
    await quotas.refund(caller(), 4.0)
    await quotas.refund(one, 0.0)
    with pytest.raises(QuotaExceeded):
        await quotas.charge(one, 0.5, NOW)


async def test_wakes_of_an_hour(quotas: Quotas) -> None:
    one = caller(wakes_per_hour=2)
    await quotas.wake(one, NOW)
    await quotas.wake(one, NOW + 1800)
    with pytest.raises(WakeRefused, match="allowed: 2 in an hour") as refused:
        await quotas.wake(one, NOW + 1801)
    assert refused.value.retry_after == 120.0  # in truth half an hour, which no SDK waits
    await quotas.wake(one, NOW + 3610)
    with pytest.raises(WakeRefused) as refused:
        await quotas.wake(one, NOW + 5390)
    assert refused.value.retry_after is not None
    assert refused.value.retry_after < 30
    for _ in range(5):
        await quotas.wake(caller(), NOW)


async def test_to_ask_whether_a_wake_is_left_counts_none(quotas: Quotas) -> None:
    one = caller(wakes_per_hour=1)
    for _ in range(3):
        await quotas.may_wake(one, NOW)
        await quotas.may_wake(caller(), NOW)
    await quotas.wake(one, NOW)
    for ask in (quotas.may_wake, quotas.wake):
        with pytest.raises(WakeRefused, match="allowed: 1 in an hour"):
            await ask(one, NOW + 1)
    await quotas.may_wake(one, NOW + 3610)


async def test_an_address_guesses_so_often_in_a_minute(quotas: Quotas) -> None:
    for _ in range(GUESSES):
        await quotas.blocked("203.0.113.7", NOW)
        await quotas.guess("203.0.113.7", NOW)
    with pytest.raises(QuotaExceeded) as refused:
        await quotas.blocked("203.0.113.7", NOW + 10)
    assert refused.value.retry_after == pytest.approx(50, abs=0.3)
    assert "203.0.113.7" not in refused.value.message
    await quotas.blocked("203.0.113.8", NOW + 10)
    await quotas.blocked("203.0.113.7", NOW + 61)


@pytest.mark.parametrize(
    ("guesses", "asks", "blocked"),
    [
        ("2001:db8:1:2::{}", "2001:db8:1:2:ffff::1", True),
        ("2001:db8:1:2::{}", "2001:db8:1:3::1", False),
        ("::ffff:203.0.113.7", "203.0.113.7", True),
        ("testclient", "testclient", True),
        ("", "", True),
    ],
)
async def test_a_host_cannot_hide_among_its_own_addresses(
    quotas: Quotas, guesses: str, asks: str, blocked: bool
) -> None:
    for number in range(GUESSES):
        await quotas.guess(guesses.format(number), NOW)
    if blocked:
        with pytest.raises(QuotaExceeded):
            await quotas.blocked(asks, NOW)
    else:
        await quotas.blocked(asks, NOW)


async def test_edges_on_one_redis_share_a_limit(redis) -> None:
    edges = [opened_at(redis.url, "closed", Failures()) for _ in range(2)]
    one = caller(megapixel_steps_per_minute=50)

    async def passes(edge: Quotas) -> bool:
        try:
            await edge.charge(one, 1.0)
        except QuotaExceeded:
            return False
        return True

    assert sum(await asyncio.gather(*(passes(edges[n % 2]) for n in range(200)))) == 50
    await edges[0].refund(one, 1.0)
    assert [await passes(edge) for edge in (edges[1], edges[0])] == [True, False]
    for edge in edges:
        await edge.close()


async def test_redis_goes_and_comes_back(redis) -> None:
    counts = {"closed": Failures(), "open": Failures()}
    closed, opened = (opened_at(redis.url, failure, counts[failure]) for failure in ("closed", "open"))
    one = caller(megapixel_steps_per_minute=10, wakes_per_hour=1)
    await closed.charge(one, 1.0)
    await opened.charge(one, 1.0)
    redis.kill()
    try:
        for _ in range(2):
            with pytest.raises(StoreUnavailable) as refused:
                await closed.charge(one, 1.0)
            assert refused.value.retry_after == 2.0
            assert refused.value.message == "the quotas cannot be read"
            await opened.charge(one, 1.0)
        with pytest.raises(StoreUnavailable):
            await closed.wake(one)
        for _ in range(3):
            await opened.wake(one)
        await closed.refund(one, 1.0)
        assert (counts["closed"].count, counts["open"].count) == (4, 5)
        # What can be told without Redis is told, and addresses are counted on.
        with pytest.raises(Forbidden):
            await closed.charge(one, 11.0)
        await closed.charge(caller(), 11.0)
        await closed.guess("203.0.113.7")
        await closed.blocked("203.0.113.7")
    finally:
        redis.start()
    async with asyncio.timeout(10):
        while True:
            try:
                await closed.charge(one, 10.0)  # the new Redis is empty
                break
            except StoreUnavailable:
                await asyncio.sleep(0.05)
    with pytest.raises(QuotaExceeded):
        await closed.charge(one, 1.0)
    for edge in (closed, opened):
        await edge.close()


async def test_a_redis_that_hangs_holds_up_only_who_came_first(redis) -> None:
    quotas = opened_at(redis.url, "closed", Failures())
    one = caller(megapixel_steps_per_minute=10)
    await quotas.charge(one, 1.0)
    redis.hang()
    try:
        refused = await asyncio.gather(*(quotas.charge(one, 1.0) for _ in range(500)), return_exceptions=True)
        assert {type(problem) for problem in refused} == {StoreUnavailable}
    finally:
        redis.wake()
    await quotas.close()


def test_another_kind_of_address_is_refused_at_the_start() -> None:
    with pytest.raises(ValueError, match=r"--redis-url: .*redis://"):
        opened_at("http://user:password@redis.internal:6379", "closed", Failures())
