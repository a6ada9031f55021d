"""Pictures whose time is over, in files and in a real S3-compatible store, with either database."""

import asyncio
import itertools
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import obstore
import pytest
from sqlalchemy import select

from predictor.core.problems import NotFound, StoreUnavailable
from predictor.edge.stores.database import Database
from predictor.edge.stores.images import Images
from predictor.edge.stores.schema import images as table
from tests.edge.stores.given import a_generation

SECRET = b"the deployment's own, of 32 bytes"
OLD, YOUNG, LIMIT = 100.0, 300.0, 200.0
_numbers = itertools.count()


class Interrupted(Images):
    """Whatever else is to happen at once, happens `before` or `after` it deletes a picture of the store."""

    before: Callable[[], Awaitable[object]] | None = None
    after: Callable[[], Awaitable[object]] | None = None

    async def delete(self, names):
        if self.before:
            await self.before()
        await super().delete(names)
        if self.after:
            await self.after()


@pytest.fixture(params=["files", "s3"])
def place(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "files":
        return ""
    s3 = request.getfixturevalue("s3")
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    return s3.url(f"retention{next(_numbers)}")


@pytest.fixture
async def edges(place: str, database_url: str, tmp_path: Path) -> AsyncIterator[list[Interrupted]]:
    """Two edges' views of one store and one database."""
    async with AsyncExitStack() as stack:
        found = []
        for _ in range(2):
            database = await Database.open(database_url)
            stack.push_async_callback(database.close)
            found.append(Interrupted.open(place, tmp_path / "images", SECRET, 60, database))
        yield found


async def kept(images: Images, count: int, now: float) -> list[str]:
    return [await images.keep(a_generation(), f"{now} {number}".encode(), "png", now) for number in range(count)]


async def rows(images: Images) -> dict[str, float]:
    """Names and when they were made."""
    async with images._database.read() as connection:
        return {row.name: row.created for row in await connection.execute(select(table))}


async def stored(images: Images) -> set[str]:
    """What is in the store, whatever the database knows."""
    return {found["path"] for found in await obstore.list(images._store).collect_async()}


async def test_old_pictures_go_and_young_ones_stay(edges):
    images, _ = edges
    old, young = await kept(images, 3, OLD), await kept(images, 2, YOUNG)
    assert await stored(images) == set(old) | set(young)
    assert await images.sweep(LIMIT, 100) == 3
    assert await stored(images) == set(await rows(images)) == set(young)
    assert await images.sweep(LIMIT, 100) == 0
    with pytest.raises(NotFound):
        await images.get(old[0])
    assert await images.get(young[0]) == b"300.0 0"


async def test_the_oldest_go_first_as_many_as_are_asked_for(edges):
    images, _ = edges
    for now in (30.0, 10.0, 20.0, 40.0):
        await kept(images, 1, now)
    assert await images.sweep(LIMIT, 3) == 3
    assert list((await rows(images)).values()) == [40.0]
    assert len(await stored(images)) == 1


async def test_a_picture_that_is_gone_already_is_fine(edges):
    images, _ = edges
    old = await kept(images, 2, OLD)
    await images.delete(old[:1])
    assert await images.sweep(LIMIT, 100) == 2
    assert (await rows(images), await stored(images)) == ({}, set())


async def test_two_sweepers_share_the_work_and_count_each_picture_once(edges):
    old, young = await kept(edges[0], 20, OLD), await kept(edges[1], 1, YOUNG)
    swept = await asyncio.gather(*(edge.sweep(LIMIT, 100) for edge in edges))
    assert sum(swept) == len(old)
    assert await stored(edges[0]) == set(await rows(edges[0])) == set(young)


async def test_a_picture_made_again_stays(edges):
    images, other = edges
    (name,) = await kept(images, 1, OLD)
    await other.keep(a_generation(), b"100.0 0", "png", YOUNG)
    assert await images.sweep(LIMIT, 100) == 0
    assert await images.get(name) == b"100.0 0"


async def test_a_picture_made_again_after_the_sweeper_has_looked_stays(edges):
    images, other = edges
    first, second = await kept(images, 2, OLD)
    content = {first: b"100.0 0", second: b"100.0 1"}

    class Slow(Interrupted):
        """Somebody makes the second picture again once the sweeper knows both names, and has its eye on the first."""

        async def _forget(self, name, older_than):
            if not made:
                made.append(second if name == first else first)
                await other.keep(a_generation(), content[made[0]], "png", YOUNG)
            return await super()._forget(name, older_than)

    made: list[str] = []
    images.__class__ = Slow
    assert await images.sweep(LIMIT, 100) == 1
    assert await stored(images) == set(await rows(images)) == set(made)
    assert await images.get(made[0]) == content[made[0]]


async def test_a_picture_made_again_while_it_is_deleted_is_stored_afterwards(edges):
    images, other = edges
    (name,) = await kept(images, 1, OLD)
    made: list[asyncio.Task[str]] = []

    async def make() -> None:
        made.append(asyncio.create_task(other.keep(a_generation(), b"100.0 0", "png", YOUNG)))
        # It waits for the row; a maker that does not would have stored it by now, and lose it.
        await asyncio.wait(made, timeout=0.5)

    images.before = make
    assert await images.sweep(LIMIT, 100) == 1
    assert await made[0] == name
    assert await other.get(name) == b"100.0 0"
    assert await rows(other) == {name: YOUNG}


async def test_a_sweeper_that_ends_between_picture_and_row_leaves_the_row(edges):
    images, other = edges
    (name,) = await kept(images, 1, OLD)

    async def die() -> None:
        raise RuntimeError("killed")

    images.after = die
    with pytest.raises(RuntimeError, match="killed"):
        await images.sweep(LIMIT, 100)
    assert (await rows(other), await stored(other)) == ({name: OLD}, set())
    assert await other.sweep(LIMIT, 100) == 1
    assert await rows(other) == {}


async def test_of_many_pictures_those_stay_that_somebody_makes_again_amid_two_sweeps(edges):
    dice = random.Random(0)
    for round in range(6):
        contents = [f"{round} {number}".encode() for number in range(6)]
        old = [await edges[0].keep(a_generation(), content, "png", OLD) for content in contents]
        again = dice.sample(contents, 3)
        makers = [edge.keep(a_generation(), content, "png", YOUNG) for content in again for edge in edges]
        work = [*makers, *(edge.sweep(LIMIT, 100) for edge in edges)]
        dice.shuffle(work)
        await asyncio.gather(*work)
        young = [edges[0].name("acme", content, "png") for content in again]
        assert [await edges[1].get(name) for name in young] == again
        assert await stored(edges[0]) == set(await rows(edges[0])) == set(young)
        assert set(young) < set(old)
        assert await edges[0].sweep(YOUNG + 1, 100) == 3


@pytest.mark.parametrize("place", ["s3"], indirect=True)
async def test_while_the_store_is_away_every_row_stays(edges, s3):
    images, _ = edges
    old = await kept(images, 2, OLD)
    s3.stop()
    try:
        with pytest.raises(StoreUnavailable):
            await images.sweep(LIMIT, 100)
        assert set(await rows(images)) == set(old)
    finally:
        s3.start()
    assert await images.sweep(LIMIT, 100) == 2
    assert (await rows(images), await stored(images)) == ({}, set())
