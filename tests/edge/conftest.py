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
    """An S3-compatible server (`tests/parts/s3.py`): `.url(bucket)`, `.environment`, `.stop()`, `.start()`, `.kill()`."""
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


@pytest.fixture(scope="session")
def capabilities_file(sdzero, demo_model, tmp_path_factory) -> object:
    """What the demo model can do, as `sdzero capabilities` writes it."""
    path = tmp_path_factory.mktemp("capabilities") / "shapes.json"
    ended = sdzero("capabilities", "--model", demo_model, "--device", "cpu", "--out", path)
    assert ended.returncode == 0, ended.stderr
    return path


@pytest.fixture(scope="session")
def start_edge(tmp_path_factory, capabilities_file) -> Iterator[object]:
    """Starts edges in front of a predictor's address, with further settings as keywords; ends them after the last test."""
    from tests.edge.running import Edge

    started: list[Edge] = []

    def begin(predictor_url: str, ready: bool = True, environment=None, **settings) -> Edge:
        settings = {"model_name": "shapes", "capabilities": capabilities_file} | settings
        edge = Edge(tmp_path_factory.mktemp("edge"), predictor_url, settings, environment or {})
        started.append(edge)
        return edge.start(ready)

    yield begin
    for edge in started:
        edge.kill()


@pytest.fixture(scope="session")
def edge(start_edge, start_predictor) -> object:
    """One edge in front of one real predictor, for all tests that hurt neither."""
    return start_edge(start_predictor().url)


@pytest.fixture(scope="session")
def key(edge) -> str:
    """A key of that edge that may do everything but see others' things."""
    return edge.key("--name", "tests")
