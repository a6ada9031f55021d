"""Opening, and what several writers and processes do to one database."""

import asyncio
import signal
import stat
import traceback

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from structlog.testing import capture_logs

from predictor.core.problems import NotFound, StoreUnavailable
from predictor.edge.stores.database import Database, address
from predictor.edge.stores.schema import cold_starts, images
from tests.edge.stores.processes import another_process, told
from tests.processes import free_port

ROW = {"at": 1.0, "seconds": 2.0, "phases": "{}"}
NUMBERS = {"bytes": 1, "created": 1.0}


async def rows(database: Database) -> int:
    async with database.read() as connection:
        return (await connection.execute(text("SELECT count(*) FROM cold_starts"))).scalar_one()


async def test_what_was_written_is_there_after_opening_again(database_url):
    for before in range(2):
        database = await Database.open(database_url)
        assert await rows(database) == before
        async with database.write() as connection:
            await connection.execute(cold_starts.insert(), ROW)
        await database.close()


async def test_a_process_killed_amid_a_transaction_leaves_what_it_had_committed(database_url):
    program = (
        "from predictor.edge.stores.database import Database\n"
        "from predictor.edge.stores.schema import cold_starts\n"
        "row = {'at': 1.0, 'seconds': 2.0, 'phases': '{}'}\n"
        "async def go():\n"
        "    database = await Database.open(url)\n"
        "    async with database.write() as connection: await connection.execute(cold_starts.insert(), row)\n"
        "    async with database.write() as connection:\n"
        "        await connection.execute(cold_starts.insert(), row); tell('amid'); await asyncio.Event().wait()\n"
        "asyncio.run(go())"
    )
    with another_process(program, database_url) as process:
        assert told(process) == "amid"
        process.send_signal(signal.SIGKILL)
        process.wait()
    database = await Database.open(database_url)
    assert await rows(database) == 1
    async with database.write() as connection:
        await connection.execute(cold_starts.insert(), ROW)
    assert await rows(database) == 2
    await database.close()


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("", "none"),
        ("sqlite://", "sqlite"),
        ("sqlite:///", "sqlite"),
        ("sqlite:///:memory:", "sqlite"),
        ("sqlite:///a.db?mode=ro", "sqlite"),
        ("mysql://root:hunter2@host/name", "mysql"),
        ("postgresql+psycopg://root:hunter2@host/name", r"postgresql\+psycopg"),
        ("data/sdzero.db", "none"),
    ],
)
async def test_other_addresses_are_refused_in_words(url, kind):
    with pytest.raises(ValueError, match=rf"'{kind}'; allowed: sqlite:///PATH of a file, or postgresql://") as refused:
        await Database.open(url)
    assert "hunter2" not in str(refused.value)


def test_the_database_is_a_file_in_the_data_folder_unless_told_otherwise():
    assert address("", "data") == "sqlite:///data/sdzero.db"
    assert address("", "/var/data") == "sqlite:////var/data/sdzero.db"
    assert address("postgresql://host/name", "data") == "postgresql://host/name"


async def test_no_password_is_shown():
    url = f"postgresql://edge:hunter2@127.0.0.1:{free_port()}/name"
    with capture_logs() as logs, pytest.raises(StoreUnavailable) as refused:
        await Database.open(url)
    assert [line["event"] for line in logs] == ["database away"]
    shown = "".join(traceback.format_exception(refused.value, chain=True))
    assert "hunter2" not in shown + repr(logs)
    assert str(refused.value) == "the database does not answer"
    with pytest.raises(ValueError, match="%2F") as unreadable:
        await Database.open("postgresql://edge:hun/ter2@127.0.0.1/name")
    assert "hun" not in str(unreadable.value).replace("PASSWORD", "")
    assert unreadable.value.__suppress_context__


async def test_errors_show_no_parameters(database):
    async def twice() -> None:
        async with database.write() as connection:
            for _ in range(2):
                await connection.execute(images.insert(), dict.fromkeys(images.c.keys(), "hunter2") | NUMBERS)

    with pytest.raises(IntegrityError) as refused:
        await twice()
    assert refused.value.hide_parameters
    assert "'hunter2'" not in str(refused.value)


async def test_an_exception_undoes_the_transaction_and_passes(database):
    async def fail() -> None:
        async with database.write() as connection:
            await connection.execute(cold_starts.insert(), ROW)
            raise NotFound("gone")

    with pytest.raises(NotFound, match="gone"):
        await fail()
    assert await rows(database) == 0


async def test_writers_take_turns_and_lose_nothing(database):
    async def add() -> None:
        async with database.write() as connection:
            await connection.execute(cold_starts.insert(), ROW)

    await asyncio.gather(*(add() for _ in range(200)))
    assert await rows(database) == 200


async def test_what_a_writer_reads_on_sqlite_stays_true_until_it_writes(tmp_path):
    url = f"sqlite:///{tmp_path / 'sdzero.db'}"
    edges = [await Database.open(url), await Database.open(url)]

    async def count_up(database: Database) -> None:
        async with database.write() as connection:
            last = (await connection.execute(text("SELECT coalesce(max(at), 0) FROM cold_starts"))).scalar_one()
            await connection.execute(cold_starts.insert(), ROW | {"at": last + 1})

    await asyncio.gather(*(count_up(edge) for _ in range(50) for edge in edges))
    async with edges[0].read() as connection:
        found = (await connection.execute(text("SELECT at FROM cold_starts ORDER BY at"))).scalars().all()
    assert found == [float(number) for number in range(1, 101)]
    for edge in edges:
        await edge.close()


async def test_a_writer_that_is_cancelled_lets_the_next_one_write(database):
    amid = asyncio.Event()

    async def never_ends() -> None:
        async with database.write() as connection:
            await connection.execute(cold_starts.insert(), ROW)
            amid.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(never_ends())
    await amid.wait()
    task.cancel()
    await asyncio.wait([task])
    async with database.write() as connection:
        await connection.execute(cold_starts.insert(), ROW)
    assert await rows(database) == 1


async def test_sqlite_readers_do_not_wait_for_a_writer_nor_see_half_of_it(tmp_path):
    database = await Database.open(f"sqlite:///{tmp_path / 'sdzero.db'}")
    async with database.write() as connection:
        await connection.execute(cold_starts.insert(), ROW)
        assert await rows(database) == 0
        pragmas = {
            name: (await connection.execute(text(f"PRAGMA {name}"))).scalar_one()
            for name in ("journal_mode", "foreign_keys", "synchronous", "busy_timeout")
        }
    assert pragmas == {"journal_mode": "wal", "foreign_keys": 1, "synchronous": 2, "busy_timeout": 10000}
    await database.close()


async def test_a_new_sqlite_file_is_for_its_owner_in_a_folder_that_is_made(tmp_path):
    file = tmp_path / "with space%" / "deep" / "sdzero.db"
    await (await Database.open(f"sqlite:///{file}")).close()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


async def test_a_file_that_is_no_database_is_refused(tmp_path):
    file = tmp_path / "notes.txt"
    file.write_text("not a database, but long enough to look at" * 100)
    with pytest.raises(ValueError, match=r"notes\.txt: file is not a database"):
        await Database.open(f"sqlite:///{file}")
    assert file.read_text().startswith("not a database")


async def test_postgresql_away_is_a_problem_and_back_is_forgotten(postgresql):
    database = await Database.open(postgresql.create("away"))
    await database.ping()
    for end in (postgresql.stop, postgresql.kill):
        end()
        for _ in range(3):
            with pytest.raises(StoreUnavailable, match=r"^the database does not answer$") as problem:
                await database.ping()
        assert problem.value.retry_after == 2.0
        postgresql.start()
        await asyncio.gather(*(database.ping() for _ in range(20)))
    await database.close()


async def test_a_restart_of_postgresql_between_two_requests_is_not_noticed(postgresql):
    database = await Database.open(postgresql.create("restarted"))
    await asyncio.gather(*(database.ping() for _ in range(5)))
    postgresql.stop()
    postgresql.start()
    await asyncio.gather(*(database.ping() for _ in range(5)))
    await database.close()


async def test_postgresql_killed_amid_a_transaction_is_a_problem_for_who_was_in_it(postgresql):
    database = await Database.open(postgresql.create("amid"))

    async def interrupted() -> None:
        async with database.write() as connection:
            await connection.execute(cold_starts.insert(), ROW)
            postgresql.kill()
            await connection.execute(cold_starts.insert(), ROW)

    with pytest.raises(StoreUnavailable):
        await interrupted()
    postgresql.start()
    assert await rows(database) == 0
    await database.close()
