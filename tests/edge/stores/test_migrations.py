"""How a database comes to its tables, whoever opens it and when."""

import ast
import re
import signal

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import inspect, text

from predictor.edge.stores import migrations
from predictor.edge.stores.database import Database
from predictor.edge.stores.schema import cold_starts, metadata
from tests.edge.stores.processes import another_process, told

ROW = {"at": 1.0, "seconds": 2.0, "phases": "{}"}


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


def test_an_up_to_date_database_is_opened_without_what_it_does_not_need(database_url):
    program = (
        "from predictor.edge.stores.database import Database\n"
        "async def go(): await (await Database.open(url)).close()\n"
        "asyncio.run(go()); tell(*(sys.modules.keys() & {'alembic', 'sqlalchemy.orm', 'asyncpg'}))"
    )
    with another_process(program, database_url) as first:
        assert "alembic" in told(first)
    with another_process(program, database_url) as second:
        assert told(second) == ("asyncpg" if database_url.startswith("postgresql") else "")


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


async def test_a_newer_edge_may_migrate_while_this_one_waits_for_the_lock(database_url, monkeypatch):
    newer = await Database.open(database_url)
    await stamp(newer, "1_0099")
    await newer.close()
    looks = iter([True])  # what this one saw before it waited
    due = migrations.due
    monkeypatch.setattr(migrations, "due", lambda revision: next(looks, None) or due(revision))
    await (await Database.open(database_url)).close()


@pytest.mark.parametrize("revision", ["2_0001", "9f3b2c", "0_0001"])
async def test_a_database_that_this_version_cannot_understand_is_refused(database_url, revision):
    database = await Database.open(database_url)
    await stamp(database, revision)
    await database.close()
    with pytest.raises(ValueError, match=rf"of revision '{revision}'; allowed: up to 1_\d+"):
        await Database.open(database_url)
