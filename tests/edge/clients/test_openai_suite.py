"""openai-python's own tests of images and models, unchanged but for the key, run against the real edge.

They come from the source distribution of the version that is installed; the wheel has none.
"""

import os
import re
import subprocess
import sys
import tarfile
from importlib.metadata import version
from pathlib import Path
from xml.etree import ElementTree

import pytest

PYTEST = (
    *("-m", "pytest", "--rootdir", ".", "-c", os.devnull, "-p", "no:cacheprovider"),
    *("-o", "asyncio_mode=auto", "-o", "asyncio_default_fixture_loop_scope=session", "-W", "error"),
)
KEY = 'api_key = "My API Key"'
# Edits, variations and the deletion of a model are no routes of ours.
SELECTED = "generate or retrieve or list"
# All parameters of three generations of models at once: no one model takes them. Ours names the first that it does
# not know; it would refuse the transparent background, the partial images and the link without a stream as well.
CLIENTS = {"Images": ("loose", "strict"), "AsyncImages": ("loose", "strict", "aiohttp")}
REFUSED = {
    f"Test{kind}.test_method_generate_with_all_params_overload_{overload}[{client}]"
    for kind, clients in CLIENTS.items()
    for client in clients
    for overload in (1, 2)
}
BECAUSE = "complexity: no such field"


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of openai-python's sources, with its tests."""
    folder, name = tmp_path_factory.mktemp("openai"), f"openai-{version('openai')}"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--retries", "1", "download", "--no-deps"]
    wanted = ["--no-binary", "openai", "--dest", str(folder), name.replace("-", "==", 1)]
    got = subprocess.run([*pip, *wanted], capture_output=True, text=True, timeout=120)
    if got.returncode:
        pytest.skip(f"no package index has the sources of {name}: {got.stderr.strip().splitlines()[-1]}")
    with tarfile.open(folder / f"{name}.tar.gz") as archive:
        archive.extractall(folder, filter="data")
    return folder / name


@pytest.fixture(scope="module")
def outcomes(source, start_edge, edge) -> dict[str, str]:
    """Of every selected test: how it failed, or nothing."""
    looked_up = re.search(
        r'models\.retrieve\(\s*"([^"]+)"', (source / "tests/api_resources/test_models.py").read_text()
    )
    assert looked_up
    of_the_suite = start_edge(edge.predictor_url, model_aliases=looked_up[1])
    conftest = source / "tests" / "conftest.py"
    text = conftest.read_text()
    assert text.count(KEY) == 1
    conftest.write_text(text.replace(KEY, 'api_key = os.environ["SDZERO_API_KEY"]'))
    told = {"TEST_API_BASE_URL": f"{of_the_suite.url}/v1", "SDZERO_API_KEY": of_the_suite.key("--name", "suite")}
    files = [f"tests/api_resources/test_{name}.py" for name in ("images", "models")]
    run = subprocess.run(
        [sys.executable, *PYTEST, *files, "-k", SELECTED, "--junit-xml", "outcomes.xml"],
        cwd=source,
        env=os.environ | told,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert run.returncode in (0, 1), run.stdout + run.stderr
    found = {}
    for case in ElementTree.parse(source / "outcomes.xml").iter("testcase"):
        failed = [child for child in case if child.tag in ("failure", "error", "skipped")]
        message = failed[0].get("message", failed[0].tag) if failed else ""
        found[f"{case.get('classname', '').rpartition('.')[2]}.{case.get('name')}"] = message
    return found


def test_everything_passes_but_what_no_model_could_do(outcomes):
    assert {name for name, failed in outcomes.items() if failed} == REFUSED
    passed = [name for name, failed in outcomes.items() if not failed]
    assert len([name for name in passed if "generate" in name]) == 30
    assert len([name for name in passed if "retrieve" in name or "list" in name]) == 35


def test_what_is_refused_is_refused_by_name(outcomes):
    for name in REFUSED:
        assert "BadRequestError" in outcomes[name]
        assert BECAUSE in outcomes[name]
