"""The books: they add up, by key and period, and nothing is booked twice."""

import asyncio
import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.exc import IntegrityError

from predictor.core.problems import StoreUnavailable
from predictor.edge.stores import ledger as books
from predictor.edge.stores.database import Database
from predictor.edge.stores.ledger import Ledger, Line, Usage, insert

SUMS = ("images", "megapixel_steps", "gpu_seconds", "cold_starts", "cache_hits")


def line(at: float = 1.0, **given: object) -> Line:
    return Line(
        **{"at": at, "tenant": "a", "key_id": "k", "request_id": "r", "action": "generate", "outcome": "ok"} | given
    )


async def test_a_line_comes_back_as_it_was_written(database):
    written = line(
        2.5,
        job_id="job_1",
        images=2,
        megapixel_steps=10.5,
        gpu_seconds=0.25,
        cold_starts=1,
        cache_hits=0,
        prompt="ein Bär",
        facts={"generation": "gen_1", "sizes": [512, 512], "nul": "\0"},
    )
    ledger = Ledger(database, b"secret")
    await ledger.add([line(1.0), written])
    (entry, first) = await ledger.tail(limit=5)
    assert entry.number > first.number
    assert {name: getattr(entry, name) for name in Line.__struct_fields__} == {
        name: getattr(written, name) for name in Line.__struct_fields__
    }


async def test_the_tail_is_paged_from_the_newest(database):
    ledger = Ledger(database, b"secret")
    await ledger.add(line(float(at)) for at in range(7))
    first = await ledger.tail(limit=3)
    second = await ledger.tail(limit=3, before=first[-1].number)
    assert [entry.at for entry in first + second] == [6, 5, 4, 3, 2, 1]
    assert [entry.at for entry in await ledger.tail(limit=9, since=5.0)] == [6, 5]


async def test_usage_sums_each_key_over_a_period(database):
    ledger = Ledger(database, b"secret")
    await ledger.add(
        [
            line(0.9, images=100),
            line(1.0, images=1, megapixel_steps=5.0, gpu_seconds=0.5, cold_starts=1),
            line(1.5, images=2, megapixel_steps=10.0, gpu_seconds=0.25),
            line(1.6, action="cached", cache_hits=1),
            line(1.7, action="refused", outcome="quota_exceeded"),
            line(1.8, action="key.create"),
            line(1.9, key_id="l", images=3),
            line(1.9, key_id="m", tenant="b", images=4),
            line(2.0, images=100),
        ]
    )
    k = Usage(
        tenant="a",
        key_id="k",
        requests=4,
        failed=1,
        images=3,
        megapixel_steps=15.0,
        gpu_seconds=0.75,
        cold_starts=1,
        cache_hits=1,
    )
    everybody = await ledger.usage(since=1.0, until=2.0)
    assert everybody[0] == k
    assert [(usage.tenant, usage.key_id, usage.images) for usage in everybody] == [
        ("a", "k", 3),
        ("a", "l", 3),
        ("b", "m", 4),
    ]
    assert [usage.key_id for usage in await ledger.usage(tenant="a", since=1.0, until=2.0)] == ["k", "l"]
    assert await ledger.usage(tenant="a", key_id="k", since=1.0, until=2.0) == [k]
    assert await ledger.usage(tenant="b", key_id="k", since=1.0, until=2.0) == []
    assert await ledger.gpu_seconds("k", 1.2) == 0.25
    assert await ledger.gpu_seconds("nobody", 0.0) == 0.0


async def test_a_job_is_booked_once(database):
    ledger = Ledger(database, b"secret")
    await ledger.add([line(job_id="job_1"), line(job_id="job_2"), line(), line()])
    with pytest.raises(IntegrityError):
        await ledger.add([line(job_id="job_3"), line(job_id="job_1")])
    assert [entry.job_id for entry in await ledger.tail(limit=9)] == [None, None, "job_2", "job_1"]


async def test_lines_are_part_of_the_transaction_that_they_book(database):
    async def undone() -> None:
        async with database.write() as connection:
            await insert(connection, [line()])
            raise KeyError

    with pytest.raises(KeyError):
        await undone()
    assert await Ledger(database, b"secret").tail(limit=9) == []


async def test_notes_are_written_by_the_next_flush_in_their_order(database, monkeypatch):
    monkeypatch.setattr(books, "CHUNK", 3)
    ledger = Ledger(database, b"secret")
    await ledger.add([line(job_id="job_1", at=0.0)])
    for at in range(1, 8):
        ledger.note(line(float(at), job_id="job_1" if at == 4 else None))
    assert len(await ledger.tail(limit=99)) == 1
    await ledger.flush()
    await ledger.flush()
    assert [entry.at for entry in await ledger.tail(limit=99)] == [7, 6, 5, 3, 2, 1, 0]


async def test_notes_outlive_a_database_that_is_away(postgresql):
    database = await Database.open(postgresql.create("notes"))
    ledger = Ledger(database, b"secret")
    ledger.note(line(1.0))
    postgresql.stop()
    with pytest.raises(StoreUnavailable):
        await ledger.flush()
    ledger.note(line(2.0))
    postgresql.start()
    await ledger.flush()
    assert [entry.at for entry in await ledger.tail(limit=9)] == [2.0, 1.0]
    await database.close()


async def test_a_flush_that_is_cancelled_within_its_commit_writes_each_note_once(database):
    committed, go_on = asyncio.Event(), asyncio.Event()

    class Slow:
        read = database.read

        @contextlib.asynccontextmanager
        async def write(self):
            async with database.write() as connection:
                yield connection
            committed.set()
            await go_on.wait()

    ledger = Ledger(Slow(), b"secret")
    ledger.note(line(1.0))
    flushing = asyncio.create_task(ledger.flush())
    await committed.wait()
    flushing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await flushing
    ledger.note(line(2.0))
    last = asyncio.create_task(ledger.flush())
    go_on.set()
    await last
    assert [entry.at for entry in await ledger.tail(limit=9)] == [2.0, 1.0]


async def test_notes_that_memory_does_not_hold_are_counted(database, monkeypatch):
    monkeypatch.setattr(books, "MOST_NOTES", 2)
    ledger = Ledger(database, b"secret")
    for at in range(5):
        ledger.note(line(float(at)))
    await ledger.flush()
    assert ledger.dropped == 3
    assert [entry.at for entry in await ledger.tail(limit=9)] == [1.0, 0.0]


@given(prompt=st.text(st.characters(exclude_categories=["Cs"])), secret=st.binary(min_size=1, max_size=64))
def test_a_prompt_is_a_keyed_hash_unless_it_is_audited(prompt, secret):
    hashed = Ledger(None, secret).prompt(prompt)
    assert len(hashed) == len("hmac-sha256:") + 64
    assert hashed == Ledger(None, secret).prompt(prompt)
    assert hashed != Ledger(None, secret).prompt(f"{prompt}.")
    assert hashed != Ledger(None, secret + b"1").prompt(prompt)
    assert Ledger(None, secret, audit_prompts=True).prompt(prompt) == prompt.replace("\0", "␀")


async def test_an_audited_prompt_can_be_stored_whatever_it_holds(database):
    ledger = Ledger(database, b"secret", audit_prompts=True)
    await ledger.add([line(prompt=ledger.prompt("a\0b 🐻"))])
    assert [entry.prompt for entry in await ledger.tail(limit=1)] == ["a␀b 🐻"]
