"""A PostgreSQL server of the tests' own."""

import asyncio
import atexit
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import asyncpg

from tests.parts.part import program
from tests.processes import free_port, wait_until

HOW = "apt install postgresql, or any of PostgreSQL's packages for your system"
PLACES = [str(place) for place in sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)]
# A process that is killed loses nothing with it; only a power cut would.
QUICK = ("-c", "fsync=off", "-c", "full_page_writes=off", "-c", "shared_buffers=32MB")


class PostgreSQL:
    """A server with data of its own on a free port, which it keeps.

    Raises:
        Missing: PostgreSQL is not installed.
    """

    def __init__(self, folder: Path) -> None:
        self._initdb = program("initdb", HOW, *PLACES)
        self._postgres = program("postgres", HOW, *PLACES)
        self._port = free_port()
        self._log = folder / "postgresql.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._as: dict[str, object] = {}
        self._home = folder
        if os.geteuid() == 0:
            # PostgreSQL refuses to run as root, and another user cannot see into pytest's folders.
            names = {user.pw_name for user in pwd.getpwall()}
            user = pwd.getpwnam("postgres" if "postgres" in names else "nobody")
            self._as = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": ()}
            self._home = Path(tempfile.mkdtemp(prefix="sdzero-postgresql-"))
            os.chown(self._home, user.pw_uid, user.pw_gid)
            atexit.register(self._remove)
        self._data = self._home / "data"
        create = [self._initdb, "-D", self._data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "-N"]
        subprocess.run(create, check=True, capture_output=True, cwd="/", **self._as)
        self.start()

    def start(self) -> None:
        """Start it, where it is not running; returns when it answers."""
        if self._process is not None:
            return
        listen = (
            "-p",
            str(self._port),
            "-h",
            "127.0.0.1",
            "-c",
            "unix_socket_directories=",
            "-c",
            "max_connections=300",
        )
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [self._postgres, "-D", self._data, *listen, *QUICK], stdout=log, stderr=log, cwd="/", **self._as
            )
        wait_until(self._ready)

    def stop(self) -> None:
        """Stop it as a restart would: clients are disconnected, what was committed stays."""
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)
            self._process.wait(30)
            self._process = None

    def kill(self) -> None:
        """Kill its every process. `start` brings it back with what was committed."""
        if self._process is None:
            return
        self._process.send_signal(signal.SIGSTOP)  # or it would start new children in their place
        children = self._children()
        for process in (self._process.pid, *children):
            os.kill(process, signal.SIGKILL)
        self._process.wait()
        self._process = None
        # Until the last has gone, the memory that they share keeps a new server away.
        wait_until(lambda: not any(map(_runs, children)))

    def create(self, name: str) -> str:
        """Make a database; returns its address."""
        self.execute(f'CREATE DATABASE "{name}"')
        return self.url(name)

    def url(self, name: str) -> str:
        """The address of a database."""
        return f"postgresql://postgres@127.0.0.1:{self._port}/{name}"

    def execute(self, statement: str, name: str = "postgres") -> list[asyncpg.Record]:
        """Run one statement in the database `name`; also from a test whose event loop runs."""
        with ThreadPoolExecutor(1) as aside:
            return aside.submit(asyncio.run, self._execute(statement, name)).result()

    async def _execute(self, statement: str, name: str) -> list[asyncpg.Record]:
        connection = await asyncpg.connect(self.url(name))
        try:
            return await connection.fetch(statement)
        finally:
            await connection.close()

    def _remove(self) -> None:
        self.kill()
        shutil.rmtree(self._home)

    def _ready(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self._log.read_text(encoding="utf-8")
        # The file's lines: https://github.com/postgres/postgres/blob/master/src/include/utils/pidfile.h
        try:
            lines = (self._data / "postmaster.pid").read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return False
        return len(lines) >= 8 and int(lines[0]) == self._process.pid and lines[7].strip() == "ready"

    def _children(self) -> list[int]:
        assert self._process is not None
        table = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
        pairs = [tuple(map(int, line.split())) for line in table.splitlines()]
        return [pid for pid, parent in pairs if parent == self._process.pid]


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
