"""A database of either kind, open."""

from collections.abc import AsyncIterator

import pytest_asyncio

from predictor.edge.stores.database import Database


@pytest_asyncio.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    opened = await Database.open(database_url)
    yield opened
    await opened.close()
