"""The edge's database: SQLite in a file for one process, PostgreSQL for several.

    Database.open ─► of which revision is it?  the newest ─► serve
                                               newer      ─► serve, if whoever made it so only added
                                               older      ─► migrate in one transaction, under a lock ─► serve

Statements name their columns, so that those of a newer version are never seen.
"""

import asyncio
import functools
import os
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import structlog
from sqlalchemy import URL, Table, event, inspect, text
from sqlalchemy.engine import Connection
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as NoConnectionFree
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from predictor.core.problems import StoreUnavailable
from predictor.edge.stores import migrations

if TYPE_CHECKING:
    from sqlalchemy.dialects import postgresql, sqlite

log = structlog.get_logger("sdzero.edge")

PATIENCE = 10.0  # seconds for a lock or an answer
MIGRATING = 600.0  # seconds for the same while tables change, here or in another process
CONNECTING = 10.0  # seconds
CONNECTIONS = 10  # of one process
ADVISORY_LOCK = int.from_bytes(b"sdzero", "big")  # the one of PostgreSQL's that guards our migrations
SQLITE, POSTGRESQL = "sqlite:///", "postgresql://"

# What a server says that cannot serve now, whatever it was asked. SQLSTATE: connection, authorization, no such
# database, transaction rolled back, resources, lock, operator intervention, system error, a standby that only reads.
# https://www.postgresql.org/docs/current/errcodes-appendix.html and https://www.sqlite.org/rescode.html
AWAY = ("08", "28", "3D", "40", "53", "55P03", "57", "58", "25006")
SQLITE_AWAY = ("SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_IOERR", "SQLITE_FULL", "SQLITE_CANTOPEN", "SQLITE_READONLY")


def address(database_url: str, data: str) -> str:
    """The database that the settings name: `database_url`, or else a file in the folder `data`."""
    return database_url or f"{SQLITE}{Path(data) / 'sdzero.db'}"


def upsert(connection: AsyncConnection, table: Table) -> "sqlite.Insert | postgresql.Insert":
    """An insert into `table` that can say what becomes of a row which is there already (`on_conflict_…`)."""
    # Of the two dialects, one is never imported.
    if connection.dialect.name == "postgresql":
        from sqlalchemy.dialects.postgresql import insert

        return insert(table)
    from sqlalchemy.dialects.sqlite import insert as sqlite_insert

    return sqlite_insert(table)


class Database:
    """Transactions on one database, whose tables this edge understands."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._sqlite = engine.dialect.name == "sqlite"
        # SQLite has one writer at a time. Whoever waits for its lock polls; here they queue, first come, first served.
        self._turn: AbstractAsyncContextManager[None] = asyncio.Lock() if self._sqlite else nullcontext()

    @classmethod
    async def open(cls, url: str) -> "Database":
        """The database at `url`, migrated forward.

        Processes that start at once wait for each other's migration. A database that a newer edge has migrated is
        taken as it is when that edge only added, as the first number of its revision tells (see `migrations`): what
        it added may be null or has a default. So two versions run side by side.

        Args:
            url: `sqlite:///PATH` of a file, made where there is none; or `postgresql://USER:PASSWORD@HOST/NAME` with
                the parameters that asyncpg takes from libpq (`sslmode`, `sslrootcert`, …).

        Raises:
            ValueError: not such an address, or a database that is not ours or changed in more than additions.
            OSError: the file cannot be made.
            StoreUnavailable: the database does not answer.
        """
        database = cls(_engine(url, PATIENCE))
        try:
            if url.startswith(SQLITE):
                await database._write_ahead(Path(url.removeprefix(SQLITE)))
            async with database.read() as connection:
                behind = migrations.due(await connection.run_sync(_revision))
            if behind:
                await _migrate(cls(_engine(url, MIGRATING)))
        except BaseException:
            await database.close()
            raise
        return database

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncConnection]:
        """One transaction that changes rows: committed at the end of the block, undone by an exception.

        Raises:
            StoreUnavailable: the database does not answer. If it went away during the commit, nobody knows whether
                that has happened.
        """
        # IMMEDIATE, because a transaction that began to read fails at its first write if another wrote meanwhile.
        async with self._turn, self._transaction("BEGIN IMMEDIATE") as connection:
            yield connection

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """One transaction that only reads; on SQLite it sees one moment, and never waits for a writer.

        Raises:
            StoreUnavailable: the database does not answer.
        """
        async with self._transaction("BEGIN") as connection:
            yield connection

    async def ping(self) -> None:
        """Return if the database answers.

        Raises:
            StoreUnavailable: it does not.
        """
        async with self.read() as connection:
            await connection.execute(text("SELECT 1"))

    async def close(self) -> None:
        """Close every connection."""
        await self._engine.dispose()

    @asynccontextmanager
    async def _transaction(self, begin: str) -> AsyncIterator[AsyncConnection]:
        try:
            async with self._engine.connect() as connection:
                if self._sqlite:
                    await connection.exec_driver_sql(begin)
                yield connection
                await connection.commit()
        except Exception as error:
            if not _away(error):
                raise
            cause = getattr(error, "orig", None) or error
            log.warning("database away", kind=type(cause).__name__, said=str(cause))
            raise StoreUnavailable("the database does not answer", retry_after=2.0) from error

    async def _write_ahead(self, file: Path) -> None:
        """Make the file, for its owner's eyes only, and put it into WAL mode, in which it stays."""
        file.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(file, os.O_CREAT | os.O_RDWR, 0o600))
        async with asyncio.timeout(PATIENCE):
            while True:
                try:
                    async with self._engine.connect() as connection:
                        await connection.exec_driver_sql("PRAGMA journal_mode = WAL")
                    return
                except DBAPIError as error:
                    if not _away(error):
                        raise ValueError(f"database: {file}: {error.orig}; allowed: a file of SQLite's") from None
                    log.info("database busy", said=str(error.orig))
                # Of two processes that switch a new file at once, SQLite refuses one without letting it wait.
                await asyncio.sleep(0.02)


def _engine(url: str, patience: float) -> AsyncEngine:
    """Connections to `url`; neither its repr nor its errors show a password or a statement's parameters."""
    kind = url.partition(":")[0] if ":" in url else "none"
    path = url.removeprefix(SQLITE)
    if url.startswith(SQLITE) and path and path != ":memory:" and "?" not in path:
        return _sqlite_engine(path, patience)
    if url.startswith(POSTGRESQL):
        return _postgresql_engine(url, patience)
    raise ValueError(
        f"--database-url: got an address of the kind {kind!r}; allowed: sqlite:///PATH of a file, "
        "or postgresql://USER:PASSWORD@HOST/NAME"
    )


def _sqlite_engine(path: str, patience: float) -> AsyncEngine:
    engine = create_async_engine(
        URL.create("sqlite+aiosqlite", database=path),
        # Python would begin transactions by its own rules; `_transaction` begins them.
        connect_args={"timeout": patience, "isolation_level": None},
        hide_parameters=True,
        pool_size=CONNECTIONS,
        max_overflow=0,
        pool_timeout=patience,
    )

    @event.listens_for(engine.sync_engine, "connect")
    def configure(connection: DBAPIConnection, _: object) -> None:
        cursor = connection.cursor()
        cursor.execute("PRAGMA foreign_keys = ON")
        cursor.execute("PRAGMA synchronous = FULL")  # an acknowledged job outlives a power cut as well
        cursor.close()

    return engine


def _postgresql_engine(url: str, patience: float) -> AsyncEngine:
    import asyncpg  # type: ignore[import-untyped]  # an edge with a file does without

    try:
        urlsplit(url).port  # noqa: B018  # parsed when it is read; the error would quote a password with a slash
    except ValueError:
        raise ValueError(
            "--database-url: cannot be read as an address; allowed: postgresql://USER:PASSWORD@HOST:PORT/NAME, with "
            "%2F, %3F, %23 and %40 for the characters / ? # @ of a password"
        ) from None
    return create_async_engine(
        "postgresql+asyncpg://",
        # asyncpg reads the address as libpq does, sslmode and all.
        async_creator=functools.partial(
            asyncpg.connect,
            url,
            timeout=CONNECTING,
            command_timeout=patience,
            server_settings={"application_name": "sdzero-edge"},
        ),
        hide_parameters=True,
        pool_size=CONNECTIONS,
        max_overflow=0,
        pool_timeout=patience,
        pool_pre_ping=True,  # a server that was restarted costs new connections, not an error for each old one
    )


async def _migrate(database: Database) -> None:
    try:
        async with database.write() as connection:
            if connection.dialect.name == "postgresql":
                await connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": ADVISORY_LOCK})
            # Whoever held the lock before may have done it.
            if migrations.due(await connection.run_sync(_revision)):
                await connection.run_sync(migrations.upgrade)
    finally:
        await database.close()


def _revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one_or_none()


def _away(error: Exception) -> bool:
    """Whether the database cannot be used now, rather than refuses what it was told."""
    if isinstance(error, OSError | NoConnectionFree):  # OSError holds TimeoutError
        return True
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return True
    cause = error.orig if isinstance(error, DBAPIError) else error
    state, name = getattr(cause, "sqlstate", None), getattr(cause, "sqlite_errorname", None)
    return (state or "").startswith(AWAY) or (name or "").startswith(SQLITE_AWAY)
