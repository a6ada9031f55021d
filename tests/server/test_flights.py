import asyncio

import pytest

from predictor import clock
from predictor.core.problems import EngineLost
from predictor.core.request import GenerationRequest, resolve
from predictor.server.flights import Flight, Flights
from tests.server.fake_engine import CAPABILITIES


def request(images: int = 1) -> GenerationRequest:
    return resolve({"prompt": "red", "num_images": images}, CAPABILITIES, 1)[0]


def begun(flights: Flights, images: int = 1, seconds: float = 60.0) -> Flight:
    return flights.begin(request(images), seconds, progress=False, previews=False)


@pytest.mark.parametrize("turns", range(5))
async def test_a_cancellation_that_comes_with_an_update_is_not_forgotten(turns):
    flight = begun(Flights(lambda: None))
    waiting = asyncio.create_task(flight.update(patience=0.0))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    flight.inbox.put_nowait(EngineLost("an update"))
    for _ in range(turns):  # of the event loop, between the update and the cancellation
        await asyncio.sleep(0)
    finished = waiting.done()
    waiting.cancel()
    await asyncio.wait({waiting})
    assert waiting.cancelled() or finished


async def test_the_deadline_counts_from_the_admission():
    before = clock.now()
    flight = begun(Flights(lambda: None), seconds=0.01)
    assert before <= flight.since <= clock.now()
    assert flight.order.deadline == flight.since + 0.01
    with pytest.raises(TimeoutError):
        await flight.update(patience=0.0)


async def test_whoever_watches_hears_of_each_that_comes_and_goes():
    seen: list[int] = []
    flights = Flights(lambda: seen.append(flights.images))
    first, second, third = (begun(flights, images) for images in (1, 2, 4))
    assert [flight.order.id for flight in flights] == ["1", "2", "3"]
    assert flights.end(second.order.id)
    assert not flights.end(second.order.id)
    flights.deliver(first.order.id, EngineLost("not the last word"))
    flights.deliver(second.order.id, EngineLost("to nobody"))
    flights.lose(EngineLost("the end"))
    assert seen == [1, 3, 7, 5, 4, 0]
    assert [flight.inbox.qsize() for flight in (first, second, third)] == [2, 0, 1]
    assert not flights
