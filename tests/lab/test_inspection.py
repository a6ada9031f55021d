"""`sdzero inspect`: the exit status tells scripts, the words tell people."""

import json
import re

import msgspec
import pytest

from predictor.engine.baked.machine import describe
from predictor.lab.inspection import main
from tests.engine.baked.bundles import MACHINE, flip, write


@pytest.fixture
def here():
    """This machine, as a bake would record it."""
    return msgspec.structs.replace(describe("cpu"), compiler="g++ 12.2.0")


def test_what_is_in_a_bundle_that_fits(tmp_path, here, capsys):
    assert main([str(write(tmp_path / "bundle", machine=here))]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    assert said.out.startswith("shapes: StableDiffusionPipeline in float16, revision 0123456789abcdef\n")
    assert said.out.endswith("\nIt fits this machine.\n")
    for words in (
        r"baked +2026-01-02T03:04:05Z in 62 s by sdzero 0\.2\.0",
        rf"for +cpu: torch {re.escape(here.torch)}\n",
        r"compiler +g\+\+ 12\.2\.0\n",
        r"samplers +ddim, euler\n",
        r"weights +9\.0 kB: 5 tensors in 3 chunks\n",
        r"checksums +not compared",
        r"up to 8 images in one step",
        r"\ntext +text +any +1 +1 +640 B +packages/text/model\.so\n",
        r"\nstep-64x64-n +step +64x64 +2 to 8 +2 to 16 +6\.3 kB ",
        r"\npreview-64x64 +preview +64x64 +1 +1 +0 B ",
    ):
        assert re.search(words, said.out), words


def test_a_bundle_for_another_machine_is_shown_with_every_reason(tmp_path, here, capsys):
    other = msgspec.structs.replace(here, torch="1.0.0+mine", arch="pdp11")
    assert main([str(write(tmp_path / "bundle", machine=other))]) == 1
    said = capsys.readouterr().out
    assert "It does not fit this machine:\n- its code is for pdp11" in said
    assert f"\n- it needs torch 1.0.0+mine exactly, and torch {here.torch} is installed: install that build" in said


def test_without_a_gpu_a_bundle_for_cuda_is_still_shown(tmp_path, monkeypatch, capsys):
    def missing(name: str) -> None:
        raise OSError(f"{name}: not found")

    monkeypatch.setattr("ctypes.CDLL", missing)
    assert main([str(write(tmp_path / "bundle", machine=MACHINE))]) == 1
    said = capsys.readouterr().out
    assert "for       cuda: NVIDIA H100 80GB HBM3, compute capability 9.0, torch 2.11.0+cu130 for CUDA 13.0\n" in said
    assert "            x86_64 with avx2 avx512f fma\n  compiler  g++ 12.2.0, Triton 3.6.0\n" in said
    assert "\n- no NVIDIA driver (libcuda.so.1: not found)" in said


@pytest.mark.parametrize("verify", [False, True])
def test_json_for_scripts(tmp_path, here, capsys, verify):
    path = write(tmp_path / "bundle", machine=here)
    assert main([str(path), "--json", *["--verify"] * verify]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["manifest"] == json.loads((path / "manifest.json").read_bytes())
    assert (said["fits"], said["reasons"]) == (True, [])
    assert said["weights"] == {"bytes": 9000, "tensors": 5, "chunks": 3}
    assert said["checksums"] == ("right" if verify else "not compared")


@pytest.mark.parametrize("name", ["packages/text/model.so", "weights.bin"])
def test_a_flipped_byte_is_found_by_verify_only(tmp_path, here, capsys, name):
    path = write(tmp_path / "bundle", machine=here)
    assert main([str(path), "--verify"]) == 0
    assert "weights.bin: 100%" in (said := capsys.readouterr()).err
    assert "right, of every file" in said.out
    flip(path / name, 100)
    assert main([str(path)]) == 0
    capsys.readouterr()
    assert main([str(path), "--verify"]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert f"sdzero inspect: {path}/{name}: " in said.err
    assert "checksum" in said.err


def test_no_bundle(tmp_path, capsys):
    assert main([str(tmp_path)]) == 2
    said = capsys.readouterr()
    assert (said.out, said.err.count("\n")) == ("", 1)
    assert said.err.startswith(f"sdzero inspect: {tmp_path}/manifest.json: no such file: not a bundle")
