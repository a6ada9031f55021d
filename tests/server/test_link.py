import asyncio

import pytest

from predictor import clock
from predictor.server.link import _before


@pytest.mark.parametrize("turns", range(5))
async def test_a_cancellation_that_comes_with_an_update_is_not_forgotten(turns):
    inbox: asyncio.Queue = asyncio.Queue()
    waiting = asyncio.create_task(_before(clock.now() + 60, inbox))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    inbox.put_nowait("an update")
    for _ in range(turns):  # of the event loop, between the update and the cancellation
        await asyncio.sleep(0)
    finished = waiting.done()
    waiting.cancel()
    await asyncio.wait({waiting})
    assert waiting.cancelled() or finished
