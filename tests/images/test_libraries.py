"""Of torch, the libraries that a lean image carries are those that the lean engine opens, no more and no fewer."""

import ctypes
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from predictor.engine.baked import native
from predictor.lab.images.libraries import (
    ROOTS,
    asks_for,
    closure,
    copy_lean,
    files_of,
    lean_libraries,
    remove,
    torchs_own,
)

PACKAGES = Path(sysconfig.get_path("platlib")).resolve()
TORCH = PACKAGES / "torch" / "lib"
MAPPED = """
from predictor.engine.baked.libtorch import Libtorch
from predictor.engine.baked.stderr import StderrTail
Libtorch("cpu", StderrTail())
print(*{line.split()[-1] for line in open("/proc/self/maps") if ".so" in line}, sep="\\n")
"""


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_the_roots_are_what_the_engine_opens(device, monkeypatch):
    opened = []
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(native, "load_library", lambda path, scope: opened.append((path, scope)))
    native.load_libtorch(device, threads=1)
    assert opened == [(TORCH / name, ctypes.RTLD_GLOBAL) for name in ROOTS[device]]


def test_the_closure_is_what_the_linker_maps():
    run = subprocess.run([sys.executable, "-c", MAPPED], capture_output=True, text=True, check=True)
    mapped = {Path(line).resolve() for line in run.stdout.splitlines()}
    of_torch = {path for path in mapped if path.is_relative_to(TORCH) or path.is_relative_to(PACKAGES / "nvidia")}
    assert of_torch == lean_libraries(PACKAGES, "cpu")


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_every_library_finds_what_it_needs_among_its_own_or_in_any_system(device):
    if not (TORCH / ROOTS[device][-1]).is_file():
        pytest.skip(f"this torch is built without {device}")
    kept = lean_libraries(PACKAGES, device)
    missing = {name for library in kept for name in asks_for(library)[0]} - {library.name for library in kept}
    # libcuda is the driver's, and comes with the node; the others are in every image that Python runs in.
    system = {"libc", "libm", "libdl", "librt", "libpthread", "libutil", "ld-linux-x86-64", "libgcc_s", "libstdc++"}
    system |= {"libz", "libcuda"}
    assert {name.partition(".so")[0] for name in missing} <= system


def test_a_library_says_what_it_needs_and_where_that_is():
    needed, folders = asks_for(TORCH / "libtorch_cpu.so")
    assert {"libc10.so", "libc.so.6"} <= set(needed)
    assert TORCH in [folder.resolve() for folder in folders]


def test_the_operating_systems_libraries_are_not_ours():
    assert all(path.is_relative_to(PACKAGES) for path in closure([TORCH / "libtorch_cpu.so"]))


@pytest.mark.parametrize("content", [b"\x7fELF", b"#!/bin/sh\n", b"\x7fELF\x01\x01" + bytes(100)])
def test_a_file_that_is_no_library_is_named(tmp_path, content):
    (tmp_path / "lib.so").write_bytes(content)
    with pytest.raises(ValueError, match=r"lib\.so"):
        asks_for(tmp_path / "lib.so")


def test_what_is_removed_leaves_nothing_to_import_and_takes_nothing_else(tmp_path):
    gone = ["gone/__init__.py", "gone/deep/a.py", "gone/deep/lib.so", "both/a.py"]
    stays = ["both/b.py", "both/__pycache__/b.cpython-312.pyc", "other.py"]
    compiled = ["gone/__pycache__/__init__.cpython-312.pyc", "gone/deep/__pycache__/a.cpython-312.pyc"]
    for name in (*gone, *stays, *compiled, "both/__pycache__/a.cpython-312.pyc"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    remove([tmp_path / name for name in (*gone, "never/there.py")], tmp_path)
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()) == sorted(stays)
    assert not (tmp_path / "gone").exists()


def test_torch_and_what_it_brings_move_together():
    names = {path.name for path in torchs_own(PACKAGES)}
    assert {"torch", "torchgen"} <= names
    assert names.isdisjoint({"numpy", "diffusers", "safetensors", "tokenizers"})
    assert all(name.startswith(("torch", "functorch", "nvidia", "triton")) for name in names)


def test_a_lean_copy_has_libraries_their_origin_and_no_python(tmp_path):
    copy_lean(PACKAGES, tmp_path, "cpu")
    wanted = {path.relative_to(PACKAGES) for path in lean_libraries(PACKAGES, "cpu")}
    copied = {path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file()}
    python = {Path("torch/version.py"), Path("torch/__init__.py")}
    assert {path for path in copied if not path.parts[0].endswith(".dist-info")} == wanted | python
    described = {path.parts[0] for path in copied if path.name == "METADATA"}
    assert described == {
        one.name
        for one in PACKAGES.glob("*.dist-info")
        if not files_of(one).isdisjoint(lean_libraries(PACKAGES, "cpu"))
    }
    run = subprocess.run(
        [sys.executable, "-c", "import torch"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert "ImportError: torch's Python is not part of this image" in run.stderr
