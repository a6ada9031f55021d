"""What the tests of chart and manifests share."""

from pathlib import Path

import pytest

from tests.chart.rendering import CASES, Object, rendered
from tests.parts.clients import CLIENTS
from tests.parts.definitions import WANTED, folder
from tests.parts.part import Missing


@pytest.fixture(scope="session", autouse=True)
def parts() -> None:
    """Skip what cannot run, with what would change that."""
    try:
        for client in CLIENTS:
            client.path()
        for module in WANTED:
            folder(module)
    except Missing as missing:
        pytest.skip(str(missing))


@pytest.fixture(params=[3, 4], ids=["helm3", "helm4"])
def helm(request: pytest.FixtureRequest) -> int:
    """Each major version of Helm."""
    return int(request.param)


@pytest.fixture(params=CASES, ids=lambda path: path.stem)
def case(request: pytest.FixtureRequest) -> Path:
    """Each file of values under ci/."""
    return Path(request.param)


@pytest.fixture
def objects(case: Path, parts: None) -> list[Object]:
    """What Helm 4 makes of a case; not to be changed."""
    return rendered(4, case)
