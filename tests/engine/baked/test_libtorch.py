"""A package compiled here and now, run through the C interface: numbers, errors, and what is left behind."""

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from predictor.engine.baked.libtorch import contiguous
from predictor.lab.bake.elf import drop_dependency

# Compiles `relu(x @ weight) + bias` for any number of rows, its weights outside, and unpacks it.
COMPILE = """
import sys, torch
class Layer(torch.nn.Module):
    def __init__(self):
        super().__init__()
        # Not uniform and not tiny: the compiler writes such numbers into the code, and weights cannot replace them.
        self.weight = torch.nn.Parameter(torch.rand(3, 10))
        self.bias = torch.nn.Parameter(torch.rand(10))
    def forward(self, x):
        return torch.relu(x @ self.weight) + self.bias
rows = torch.export.Dim("rows", min=2, max=64)
program = torch.export.export(Layer(), (torch.ones(4, 3),), dynamic_shapes=({0: rows},), strict=False)
torch._inductor.aoti_compile_and_package(
    program, package_path=sys.argv[1], inductor_configs={"aot_inductor.package_constants_in_so": False}
)
"""

# Runs in a process without torch; prints what it found as JSON.
RUN = """
import ctypes, gc, json, sys
from pathlib import Path
from predictor.engine.baked.device import Host
from predictor.engine.baked.libtorch import Libtorch, LibtorchError, NoMemory, Package
from predictor.engine.baked.stderr import StderrTail
import numpy as np

torch, host = Libtorch("cpu", StderrTail()), Host()
package = Package(torch, Path(sys.argv[1]), 1, 1)
names = {original: name for name, original in package.constants().items()}
weight = np.arange(30, dtype=np.float32).reshape(3, 10) / 10
bias = np.arange(10, dtype=np.float32)
at = host.allocate(1024)
host.upload(at.address, weight)
host.upload(at.address + 256, bias)

def call(rows, columns=3):
    x = np.linspace(-1, 1, rows * columns, dtype=np.float32).reshape(rows, columns)
    host.upload(at.address + 512, x)
    (y,) = package.run([torch.wrap(at.address + 512, "float32", x.shape)])
    result = np.empty((rows, 10), np.float32)
    host.download(y.address, result)
    return float(abs(result - (np.maximum(x @ weight, 0) + bias)).max())

found = {}
package.use({
    names["weight"]: torch.wrap(at.address, "float32", weight.shape),
    names["bias"]: torch.wrap(at.address + 256, "float32", bias.shape),
})
found["errors"] = [call(rows) for rows in (2, 3, 7)]
def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096
for _ in range(200):
    call(7)
before = resident()
for _ in range(5000):
    call(7)
found["grown"] = resident() - before
for name, attempt in {
    "wrong arity": lambda: Package(torch, Path(sys.argv[1]), 2, 1),
    "no library": lambda: Package(torch, Path(sys.argv[1]).with_name("absent.so"), 1, 1),
    "no package": lambda: Package(torch, Path(sys.argv[2]), 1, 1),
    "too much": lambda: torch.check(1, "nothing"),
}.items():
    try:
        attempt()
        found[name] = ""
    except LibtorchError as error:
        found[name] = str(error)
package.close()
found["torch"] = "torch" in sys.modules
print(json.dumps(found))
"""


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("package")
    package = folder / "layer.pt2"
    subprocess.run([sys.executable, "-W", "ignore", "-c", COMPILE, str(package)], check=True, capture_output=True)
    zipfile.ZipFile(package).extractall(folder)
    (found,) = folder.rglob("*.wrapper.so")
    assert drop_dependency(found, "libtorch.so")
    return found


@pytest.fixture(scope="session")
def found(library: Path) -> dict[str, object]:
    command = [sys.executable, "-c", RUN, str(library), "libc.so.6"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    value: dict[str, object] = json.loads(ended.stdout)
    return value


def test_a_package_computes_what_was_exported_at_every_number_of_rows(found: dict[str, list[float]]) -> None:
    assert max(found["errors"]) < 1e-6


def test_it_never_imports_torch(found: dict[str, object]) -> None:
    assert found["torch"] is False


def test_five_thousand_calls_leave_nothing_behind(found: dict[str, int]) -> None:
    assert found["grown"] < 2**20


def test_errors_say_what_the_library_said(found: dict[str, str]) -> None:
    assert "GetNumInputs says 1; expected 2" in found["wrong arity"]
    assert "absent.so" in found["no library"]
    assert "No such file or directory" in found["no library"]
    assert "not a compiled package" in found["no package"]
    assert found["too much"] == "nothing failed with code 1 and gave no reason"


def test_contiguous_strides() -> None:
    for shape in [(), (3,), (2, 3), (4, 1, 5), (2, 0, 3)]:
        array = np.empty(shape, np.uint8)
        assert array.size == 0 or contiguous(shape) == array.strides
