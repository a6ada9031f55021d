"""The machine is described as torch and the driver would, and neither is woken for it."""

import os
import re
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import msgspec
import pytest

from predictor.engine.baked.machine import MachineError, describe, with_compilers
from predictor.engine.baked.manifest import Machine

ROOT = Path(__file__).parents[3]
PROGRAM = """
import sys
import msgspec
from predictor.engine.baked.machine import MachineError, describe
try:
    print(msgspec.json.encode(describe(sys.argv[1])).decode())
except MachineError as error:
    print("refused:", error)
assert not {"torch", "numpy", "importlib.metadata"} & {name for name, module in sys.modules.items() if module}
"""
DRIVER = r"""
#include <string.h>
int cuInit(unsigned flags) { return INIT; }
int cuDeviceGet(int *gpu, int ordinal) { *gpu = ordinal + 7; return 0; }
int cuDeviceGetName(char *name, int size, int gpu) { strncpy(name, "NVIDIA H200", size); return gpu == 7 ? 0 : 101; }
int cuDeviceGetAttribute(int *value, int which, int gpu) {
    *value = which == 75 ? 9 : which == 76 ? 0 : -1;
    return gpu == 7 ? 0 : 101;
}
int cuGetErrorString(int code, const char **text) { *text = "no CUDA-capable device is detected"; return 0; }
"""


def fresh(device: str, program: str = PROGRAM, **environment: str) -> str:
    """What a process of its own says of this machine."""
    run = subprocess.run(
        [sys.executable, "-c", program, device],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
    )
    assert (run.returncode, run.stderr) == (0, "")
    return run.stdout.strip()


def machine(device: str, **environment: str) -> Machine:
    return msgspec.json.decode(fresh(device, **environment), type=Machine)


@pytest.fixture
def torch(tmp_path: Path) -> Path:
    """Where a torch can be found that must not be executed."""
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text("raise SystemExit('executed')")
    (tmp_path / "torch" / "version.py").write_text("raise SystemExit('executed')\n__version__ = '2.11.0+cu130'\n")
    return tmp_path


def driver(folder: Path, init: int = 0) -> str:
    """A folder with a driver that says what it is told to."""
    if shutil.which("gcc") is None:
        pytest.skip("no compiler")
    (folder / "driver.c").write_text(DRIVER)
    command = ["gcc", "-shared", "-fPIC", f"-DINIT={init}", "-o", folder / "libcuda.so.1", folder / "driver.c"]
    subprocess.run(command, check=True)
    return str(folder)


def test_the_torch_that_is_installed_is_described_without_importing_it():
    found = machine("cpu")
    assert found.torch.partition("+")[0] == version("torch").partition("+")[0]
    assert (found.device, found.gpu, found.capability) == ("cpu", None, None)
    assert found.arch == os.uname().machine
    assert (found.compiler, found.triton) == ("", None)


@pytest.mark.parametrize(
    ("line", "cuda"),
    [
        ("cuda: Optional[str] = '13.0'", "13.0"),
        ("cuda = '12.6'", "12.6"),
        ("cuda: Optional[str] = None", None),
        ("", None),
    ],
)
def test_a_build_is_its_version_and_its_cuda(torch, line, cuda):
    with (torch / "torch" / "version.py").open("a") as file:
        file.write(f"debug = False\n{line}\nhip: Optional[str] = '6.0'\n")
    found = machine("cpu", PYTHONPATH=str(torch))
    assert (found.torch, found.cuda) == ("2.11.0+cu130", cuda)


def test_a_torch_that_is_damaged_or_missing_is_named(torch):
    file = torch / "torch" / "version.py"
    file.write_text("")
    assert fresh("cpu", PYTHONPATH=str(torch)) == (
        f"refused: {file}: it does not say which version it is; install torch again"
    )
    file.unlink()
    assert f"refused: {file}: " in fresh("cpu", PYTHONPATH=str(torch))
    hidden = "import sys; sys.modules['torch'] = None\n" + PROGRAM
    assert "refused: torch is not installed" in fresh("cpu", hidden)


def test_the_first_gpu_is_described_by_the_driver(tmp_path):
    found = machine("cuda", LD_LIBRARY_PATH=driver(tmp_path))
    assert (found.device, found.gpu, found.capability) == ("cuda", "NVIDIA H200", "9.0")


def test_a_driver_without_a_gpu_says_so(tmp_path):
    said = fresh("cuda", LD_LIBRARY_PATH=driver(tmp_path, init=100))
    assert said.startswith("refused: no GPU that can be used (cuInit: no CUDA-capable device is detected, 100)")


def test_a_machine_without_a_driver_says_so(tmp_path):
    (tmp_path / "libcuda.so.1").write_bytes(b"no library")
    said = fresh("cuda", LD_LIBRARY_PATH=str(tmp_path))
    assert said.startswith("refused: no NVIDIA driver (")
    assert "a bundle for cuda needs a GPU and its driver" in said


def test_only_flags_are_kept_that_a_compiler_may_use():
    found = re.search(r"^(?:flags|Features)\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    flags = describe("cpu").cpu_flags
    assert list(flags) == sorted(set(flags))
    assert set(flags) <= set(found[1].split())
    assert not {"aes", "hypervisor", "fpu"} & set(flags)
    for flag in ("avx2", "fma", "avx512f", "amx_tile", "asimd"):
        assert (flag in flags) == (flag in found[1].split())


def test_a_bake_also_says_which_compilers_it_uses(tmp_path, monkeypatch):
    if shutil.which("g++") is None:
        pytest.skip("no compiler")
    here = describe("cpu")
    found = with_compilers(here)
    assert re.fullmatch(r"g\+\+ \d+\.\d+\.\d+", found.compiler)
    assert msgspec.structs.replace(found, compiler="", triton=None) == here
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MachineError, match=r"g\+\+: .*install it"):
        with_compilers(here)
