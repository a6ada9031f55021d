"""A short one of what `python -m tests.edge.chaos` does for minutes."""

import pytest

from tests.edge.chaos.run import chaos
from tests.edge.chaos.world import World


@pytest.fixture
def world(tmp_path, postgresql, redis, s3):
    world = World(tmp_path, postgresql, redis, s3)
    yield world
    world.close()


async def test_whatever_dies_under_load_the_books_add_up(world):
    found = await chaos(world, 25.0, 7)
    print(found.table())
    assert found.complaints == []
    assert found.counts["faults in all"] >= 5
    assert found.counts["jobs acknowledged"] >= 20
