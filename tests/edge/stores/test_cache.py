"""Caches of results and pictures, in memory and in a real Redis."""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from predictor.core.jobs import Generation, Result, StoredImage
from predictor.core.request import GenerationRequest
from predictor.edge.redis.cache import RedisCache
from predictor.edge.redis.link import RedisLink
from predictor.edge.stores.cache import MemoryCache, ResultCache

_names = itertools.count()


def generation(finished: float, prompt: str = "a lighthouse, ÜÉ, 灯台") -> Generation:
    return Generation(
        id="gen_1",
        tenant="tenant",
        request=GenerationRequest(
            prompt=prompt,
            negative_prompt="",
            seed=7,
            steps=30,
            guidance_scale=7.5,
            height=512,
            width=512,
            sampler="euler",
            num_images=1,
            truncate_prompt=False,
        ),
        revision="sd@1",
        fingerprint="f" * 64,
        cacheable=True,
        state="done",
        attempt=1,
        created=finished - 2,
        deadline=finished + 600,
        started=finished - 1,
        finished=finished,
        result=Result(
            images=(StoredImage("a" * 48 + ".png", 7, 1000),),
            revision="sd@1",
            prompt_tokens=5,
            negative_prompt_tokens=0,
            gpu_seconds=0.25,
            timing={"denoise": 0.2},
            cold_start=False,
        ),
    )


class Failures:
    count = 0

    def __call__(self) -> None:
        self.count += 1


@pytest.fixture(params=["memory", "redis"])
async def cache(request: pytest.FixtureRequest) -> AsyncIterator[ResultCache]:
    if request.param == "memory":
        yield MemoryCache(2**20, 3600)
        return
    failures = Failures()
    link = RedisLink(request.getfixturevalue("redis").url)
    yield RedisCache(link, 3600, failures)
    await link.close()
    assert failures.count == 0


async def test_what_was_put_comes_back_equal(cache: ResultCache) -> None:
    key, kept = f"tenant:{next(_names)}", generation(time.time())
    assert await cache.get(key) is None
    await cache.put(key, kept)
    assert await cache.get(key) == kept
    assert await cache.image(key) is None  # results and pictures have names of their own
    await cache.put_image(key, b"\x89PNG\x00\xff")
    assert await cache.image(key) == b"\x89PNG\x00\xff"
    assert await cache.get(key) == kept


async def test_a_results_age_counts_from_its_end_not_from_its_coming_here(cache: ResultCache) -> None:
    key, now = f"tenant:{next(_names)}", time.time()
    await cache.put(key, generation(now - 3601))
    assert await cache.get(key) is None
    await cache.put(key, generation(now - 3000))
    assert await cache.get(key) is not None


async def test_redis_forgets_at_the_same_age(redis) -> None:
    link, key = RedisLink(redis.url), f"tenant:{next(_names)}"
    cache = RedisCache(link, 3600, Failures())
    await cache.put(key, generation(time.time() - 3500))
    assert 90 <= int(redis.ask("TTL", f"sdzero:cache:result:{key}").strip(":\r\n")) <= 100
    await cache.put_image("name", b"content")
    assert 3590 <= int(redis.ask("TTL", "sdzero:cache:image:name").strip(":\r\n")) <= 3600
    await RedisCache(link, 0, Failures()).put_image("off", b"content")
    assert redis.ask("EXISTS", "sdzero:cache:image:off") == ":0\r\n"
    await link.close()


async def test_memory_forgets_at_the_same_age() -> None:
    now = 1000.0
    cache = MemoryCache(2**20, 60, lambda: now)
    await cache.put("key", generation(970.0))
    await cache.put_image("name", b"content")
    now = 1029.9
    assert await cache.get("key") is not None
    now = 1030.0
    assert await cache.get("key") is None
    assert await cache.image("name") == b"content"
    now = 1060.0
    assert await cache.image("name") is None
    assert cache.bytes == 0


async def test_memory_drops_what_was_used_longest_ago() -> None:
    cache = MemoryCache(3 * 110, 60)
    for name in ("a", "b", "c"):
        await cache.put_image(name, bytes(100))
    assert await cache.image("a") is not None
    await cache.put_image("d", bytes(100))
    assert [name for name in "abcd" if await cache.image(name) is None] == ["b"]


async def test_what_is_larger_than_the_cache_drives_nothing_out() -> None:
    cache = MemoryCache(1000, 60)
    await cache.put_image("small", bytes(100))
    await cache.put_image("large", bytes(1001))
    assert await cache.image("large") is None
    assert await cache.image("small") == bytes(100)


async def test_no_memory_keeps_nothing() -> None:
    cache = MemoryCache(0, 60)
    await cache.put_image("name", b"")
    assert await cache.image("name") is None


@given(
    puts=st.lists(st.tuples(st.sampled_from("abcdefgh"), st.integers(0, 400), st.floats(0, 40)), max_size=60),
    limit=st.integers(0, 1000),
)
async def test_memory_is_never_over_its_bytes_and_always_has_the_latest(
    puts: list[tuple[str, int, float]], limit: int
) -> None:
    now = 0.0
    cache = MemoryCache(limit, 60, lambda: now)
    latest: dict[str, tuple[bytes, float]] = {}
    for name, size, pause in puts:
        now += pause
        await cache.put_image(name, content := bytes([len(latest)]) * size)
        latest[name] = content, now
        held = {other: found for other in "abcdefgh" if (found := await cache.image(other)) is not None}
        assert all(latest[other][0] == found and latest[other][1] > now - 60 for other, found in held.items())
        assert sum(len(f"image:{other}") + len(found) for other, found in held.items()) == cache.bytes <= limit
        assert name in held or len(f"image:{name}") + size > limit


async def test_a_redis_that_is_away_is_a_miss_and_counted(redis) -> None:
    failures, link = Failures(), RedisLink(redis.url)
    cache, key = RedisCache(link, 3600, failures), f"tenant:{next(_names)}"
    await cache.put(key, generation(time.time()))
    redis.kill()
    try:
        assert await cache.get(key) is None
        assert await cache.image("name") is None
        await cache.put(key, generation(time.time()))
        await cache.put_image("name", b"content")
        assert failures.count == 4
    finally:
        redis.start()
    async with asyncio.timeout(10):
        while await cache.image("name") is None:
            await cache.put_image("name", b"content")
            await asyncio.sleep(0.05)
    await link.close()


async def test_what_another_version_wrote_is_a_miss_and_counted(redis) -> None:
    failures, link, key = Failures(), RedisLink(redis.url), f"tenant:{next(_names)}"
    redis.ask("SET", f"sdzero:cache:result:{key}", "nonsense")
    assert await RedisCache(link, 3600, failures).get(key) is None
    assert failures.count == 1
    await link.close()


async def test_a_redis_that_is_full_is_a_miss_and_counted(redis) -> None:
    failures, link = Failures(), RedisLink(redis.url)
    cache = RedisCache(link, 3600, failures)
    redis.ask("CONFIG", "SET", "maxmemory", "1")
    try:
        await cache.put_image("full", b"content")
        assert failures.count == 1
        assert await cache.image("full") is None
        assert failures.count == 1  # it refuses to write, and is read on
    finally:
        redis.ask("CONFIG", "SET", "maxmemory", "0")
    await cache.put_image("full", b"content")
    assert await cache.image("full") == b"content"
    await link.close()
