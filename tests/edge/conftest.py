"""Real servers for the edge's tests: PostgreSQL, Redis, an S3-compatible store. `make parts` installs them."""

import itertools
from collections.abc import Iterator

import pytest

from tests.parts.part import Missing

_numbers = itertools.count()


@pytest.fixture(scope="session")
def postgresql(tmp_path_factory: pytest.TempPathFactory) -> Iterator[object]:
    """A PostgreSQL server (`tests/parts/postgresql.py`): `.create(name) -> URL`, `.stop()`, `.start()`, `.kill()`."""
    from tests.parts.postgresql import PostgreSQL

    try:
        server = PostgreSQL(tmp_path_factory.mktemp("postgresql"))
    except Missing as missing:
        pytest.skip(str(missing))
    yield server
    server.kill()


@pytest.fixture(scope="session")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[object]:
    """A Redis server (`tests/parts/redis_server.py`): `.url`, `.stop()`, `.start()`, `.kill()`."""
    from tests.parts.redis_server import RedisServer

    try:
        server = RedisServer(tmp_path_factory.mktemp("redis"))
    except Missing as missing:
        pytest.skip(str(missing))
    yield server
    server.kill()


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[object]:
    """An S3-compatible server (`tests/parts/s3.py`): `.url(bucket)`, `.environment`, `.stop()`, `.start()`…"""
    from tests.parts.s3 import S3

    try:
        server = S3(tmp_path_factory.mktemp("s3"))
    except Missing as missing:
        pytest.skip(str(missing))
    yield server
    server.kill()


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path) -> str:
    """A fresh, empty database of either kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'sdzero.db'}"
    return request.getfixturevalue("postgresql").create(f"test{next(_numbers)}")
