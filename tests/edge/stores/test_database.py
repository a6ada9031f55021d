"""Opening, migrating, and what two processes do to one database."""

import ast
import asyncio
import re
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import inspect, text
from sqlalchemy.exc import IntegrityError

from predictor.core.problems import NotFound, StoreUnavailable
from predictor.edge.stores import migrations
from predictor.edge.stores.database import Database, address
from predictor.edge.stores.schema import cold_starts, images, metadata
from tests.processes import free_port

ROOT = Path(__file__).parents[3]
ROW = {"at": 1.0, "seconds": 2.0, "phases": "{}"}
NUMBERS = {"bytes": 1, "created": 1.0}


@contextmanager
def another_process(program: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A Python that runs `program`, in which `url` is the first argument and `tell(word)` speaks to the test."""
    prelude = "import asyncio, sys\nurl = sys.argv[1]\ndef tell(word): print(word, flush=True)\n"
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", prelude + program, *arguments],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def told(process: subprocess.Popen[str]) -> str:
    return process.stdout.readline().strip()


async def rows(database: Database) -> int:
    async with database.read() as connection:
        return (await connection.execute(text("SELECT count(*) FROM cold_starts"))).scalar_one()


async def stamp(database: Database, revision: str) -> None:
    async with database.write() as connection:
        await connection.execute(text("UPDATE alembic_version SET version_num = :revision"), {"revision": revision})


async def test_the_migrations_make_the_tables_that_the_code_uses(database):
    def differences(connection):
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        checks = {
            table: {check["name"]: re.findall(r"'(\w+)'", check["sqltext"]) for check in found}
            for table in metadata.tables
            if (found := inspect(connection).get_check_constraints(table))
        }
        return compare_metadata(context, metadata), checks

    async with database.read() as connection:
        different, checks = await connection.run_sync(differences)
    assert different == []
    assert checks == {  # Alembic does not compare these
        "generations": {"ck_generations_state": ["waiting", "running", "done", "failed", "cancelled"]},
        "jobs": {"ck_jobs_state": ["active", "done", "failed", "cancelled"]},
        "deliveries": {"ck_deliveries_state": ["pending", "delivered", "dead"]},
    }


def test_the_steps_are_a_chain_in_the_order_of_their_names():
    steps = ScriptDirectory(str(migrations.FOLDER)).walk_revisions()
    assert [step.revision for step in steps] == migrations.known()[::-1]
    assert Config().get_main_option("script_location") is None  # no alembic.ini is read


def test_a_step_after_the_first_only_adds_unless_its_first_number_says_so():
    for revision, step in zip(migrations.known(), sorted((migrations.FOLDER / "versions").glob("r*.py")), strict=True):
        calls = {
            node.func.attr
            for node in ast.walk(ast.parse(step.read_text(encoding="utf-8")))
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
            if isinstance(node.func.value, ast.Name) and node.func.value.id == "op"
        }
        if not revision.endswith("_0001"):
            assert calls <= {"f", "create_table", "create_index", "add_column"}, step.name


async def test_what_was_written_is_there_after_opening_again(database_url):
    for before in range(2):
        database = await Database.open(database_url)
        assert await rows(database) == before
        async with database.write() as connection:
            await connection.execute(cold_starts.insert(), ROW)
        await database.close()


def test_an_up_to_date_database_is_opened_without_alembic(database_url):
    program = (
        "from predictor.edge.stores.database import Database\n"
        "async def go(): await (await Database.open(url)).close()\n"
        "asyncio.run(go()); tell('alembic' in sys.modules)"
    )
    with another_process(program, database_url) as first:
        assert told(first) == "True"
    with another_process(program, database_url) as second:
        assert told(second) == "False"


def test_processes_that_start_at_once_all_find_their_tables(database_url):
    program = (
        "from predictor.edge.stores.database import Database\n"
        "import alembic.command, threading\n"
        "from sqlalchemy import text\n"
        "async def go():\n"
        "    database = await Database.open(url)\n"
        "    async with database.read() as connection:\n"
        "        await connection.execute(text('SELECT count(*) FROM deliveries'))\n"
        "    await database.close()\n"
        "tell('loaded'); sys.stdin.readline(); asyncio.run(go()); tell('opened')"
    )
    with (
        another_process(program, database_url) as one,
        another_process(program, database_url) as two,
        another_process(program, database_url) as three,
    ):
        processes = (one, two, three)
        assert [told(process) for process in processes] == ["loaded"] * 3
        for process in processes:
            process.stdin.write("go\n")
            process.stdin.flush()
        assert [told(process) for process in processes] == ["opened"] * 3


async def test_a_process_killed_amid_its_migration_leaves_a_database_that_the_next_one_migrates(database_url):
    program = (
        "import signal\n"
        "from predictor.edge.stores import database, migrations\n"
        "upgrade = migrations.upgrade\n"
        "def halfway(connection): upgrade(connection); tell('halfway'); signal.pause()\n"
        "migrations.upgrade = halfway\n"
        "asyncio.run(database.Database.open(url))"
    )
    with another_process(program, database_url) as process:
        assert told(process) == "halfway"
        process.send_signal(signal.SIGKILL)
        process.wait()
    database = await Database.open(database_url)
    assert await rows(database) == 0
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


async def test_an_edge_goes_on_while_and_after_a_newer_one_adds_to_its_tables(database_url):
    old = await Database.open(database_url)
    assert await rows(old) == 0
    newer = await Database.open(database_url)
    async with newer.write() as connection:
        await connection.execute(text("ALTER TABLE cold_starts ADD COLUMN gpu TEXT"))
        await connection.execute(text("CREATE TABLE novelties (id TEXT PRIMARY KEY)"))
    await stamp(newer, "1_0099")
    await newer.close()
    async with old.write() as connection:
        await connection.execute(cold_starts.insert(), ROW)
        assert len((await connection.execute(cold_starts.select())).one()) == len(cold_starts.c)
    await old.close()
    again = await Database.open(database_url)
    assert await rows(again) == 1
    await again.close()


@pytest.mark.parametrize("revision", ["2_0001", "9f3b2c", "0_0001"])
async def test_a_database_that_this_version_cannot_understand_is_refused(database_url, revision):
    database = await Database.open(database_url)
    await stamp(database, revision)
    await database.close()
    with pytest.raises(ValueError, match=rf"of revision '{revision}'; allowed: up to 1_\d+"):
        await Database.open(database_url)


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


async def test_no_password_is_shown(caplog):
    url = f"postgresql://edge:hunter2@127.0.0.1:{free_port()}/name"
    with pytest.raises(StoreUnavailable) as refused:
        await Database.open(url)
    assert "hunter2" not in repr([refused.value, refused.value.__cause__]) + caplog.text
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
