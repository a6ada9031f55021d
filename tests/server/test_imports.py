import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from predictor.server.images import OPTIONS
from tests.processes import free_port

HERE = Path(__file__).parent
# Some module of each that comes with its execution.
NEEDLESS = {
    "PIL",
    "cloudevents.http.event",
    "cloudevents.sdk.event",
    "dateutil",
    "fastapi.security.http",
    "greenlet",
    "httpx._client",
    "httpx._main",
    "kserve.api",
    "kserve.models",
    "kserve.protocol.rest.openai",
    "kserve.protocol.rest.timeseries",
    "kubernetes",
    "numpy._core",
    "pandas.core",
    "predictor.server.drain",  # only where it is asked for
    "psutil._common",
    "pydantic.v1",
    "requests",
    "rich",
    "torch",
    "urllib3",
    "vllm",
    "watchfiles.main",
    "websockets",
    "yaml.loader",
}
# Modules of one file, which must not be executed.
POSTPONED = {
    "fastapi.openapi.models",
    "kserve",
    "kserve.inference_client",
    "kserve.protocol.rest.multiprocess.server",
}


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a server said of its imports at the moment when it listened, and of what it did not import."""
    settings = json.dumps({"http_port": free_port(), "grpc_port": free_port()})
    run = subprocess.run(
        [sys.executable, HERE / "imports_when_listening.py", settings],
        env=os.environ | {"FAKE_LOG": str(tmp_path_factory.mktemp("engine") / "notes")},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (run.returncode, run.stderr) == (0, ""), run.stdout
    return next(said for line in run.stdout.splitlines() if "loaded" in (said := json.loads(line)))


def test_a_server_that_listens_has_imported_nothing_that_it_never_uses(told):
    loaded = set(told["loaded"])
    assert {"kserve.model_server", "grpc", "uvicorn.server", "zmq.asyncio"} <= loaded
    assert loaded & (NEEDLESS | POSTPONED) == set()


def test_the_modules_of_a_server_that_listens_are_few(told):
    # Each costs a millisecond or three where files are far away; there were 1700 of them once.
    packages = Counter(name.split(".")[0] for name in told["loaded"])
    assert packages.total() < 750, packages.most_common(20)


def test_no_table_of_ours_was_filled_before_its_values_existed(told):
    assert told["kept"] == []


def test_what_was_not_imported_works_when_it_is_used(told):
    assert len(told["works"]) == 6
    assert {use for use, worked in told["works"].items() if not worked} == set()


def test_a_packer_that_is_warm_imports_nothing_for_a_picture():
    program = (
        "import asyncio, sys\n"
        "from predictor.core.request import ImageEncoding\n"
        "from predictor.server.images import Packer\n"
        "assert 'PIL' not in sys.modules\n"
        "packer = Packer(threads=1)\n"
        "packer.warm()\n"
        "import numpy as np\n"
        "def pack(form):\n"
        "    return asyncio.run(packer.pack([np.zeros((8, 8, 3), np.uint8)], ImageEncoding(form)))\n"
        # The only thread takes this one when it has warmed up.
        "pack('png')\n"
        "before = set(sys.modules)\n"
        f"[pack(form) for form in {list(OPTIONS)}]\n"
        "packer.close()\n"
        "print(*set(sys.modules) - before, '|', *before)"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], cwd=HERE.parents[1], capture_output=True, text=True, check=True
    )
    new, before = run.stdout.split("|")
    assert new.split() == []
    # Pillow would look for WebP's plugin by importing all.
    assert {"PIL.WebPImagePlugin", "PIL.TiffImagePlugin"} & set(before.split()) == {"PIL.WebPImagePlugin"}
