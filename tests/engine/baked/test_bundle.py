"""A bundle opens if all that it says is true; otherwise it is refused in words, before any of it is used."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from predictor.engine.baked.bundle import Bundle, BundleError, Machine
from predictor.engine.baked.consistency import tensor_bytes
from predictor.engine.baked.manifest import ALIGNMENT, schema
from tests.engine.baked import bundles
from tests.engine.baked.bundles import LIBRARIES, MACHINE, MODEL, TENSORS, WEIGHTS, flip, make, refused, rewrite, write

ROOT = Path(__file__).parents[3]
FILES = [*MODEL, *LIBRARIES, "weights.json", "weights.bin", "manifest.json", "manifest.sha256"]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write(tmp_path / "bundle")


@pytest.fixture(scope="module")
def anew(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the many bundles of one property are written, one over the other."""
    return tmp_path_factory.mktemp("fuzz") / "bundle"


def test_a_whole_bundle_opens(path):
    bundle = Bundle.open(path)
    bundle.verify_files()
    assert bundle.path == path
    assert [package.name for package in bundle.manifest.packages][:2] == ["text", "step-64x64-1"]
    assert bundle.manifest.machine == MACHINE
    assert bundle.index.tensors == TENSORS


def test_sha256sum_agrees_about_the_manifest(path):
    run = subprocess.run(["sha256sum", "-c", "manifest.sha256"], cwd=path, capture_output=True, text=True)
    assert (run.returncode, run.stdout) == (0, "manifest.json: OK\n")


def test_the_manifest_comes_last(path):
    (path / "manifest.json").unlink()
    refused(path, "manifest.json: no such file: not a bundle, or its bake has not finished")


def test_opening_needs_neither_torch_nor_numpy():
    program = """if True:
        import predictor.engine.baked.bundle, predictor.engine.baked.machine, predictor.engine.baked.weights, sys
        print(sorted({"torch", "numpy", "importlib.metadata"} & set(sys.modules)))
    """
    run = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert (run.stdout, run.stderr) == ("[]\n", "")


# What the folder holds


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["gone", "empty", "cut short", "grown", "a folder", "a pipe", "a loop"])
def test_a_damaged_file_is_refused_by_name(path, name, damage):
    file = path / name
    content = file.read_bytes()
    file.unlink()
    if damage in ("empty", "cut short", "grown"):
        file.write_bytes({"empty": b"", "cut short": content[:-1], "grown": content + b"}"}[damage])
    elif damage == "a folder":
        file.mkdir()
    elif damage == "a pipe":
        os.mkfifo(file)
    elif damage == "a loop":
        file.symlink_to(file.name)
    message = refused(path)
    assert name in message or name == "manifest.sha256"


@pytest.mark.parametrize("name", FILES)
def test_a_link_out_of_the_bundle_is_not_followed(path, tmp_path, name):
    elsewhere = tmp_path / "elsewhere"
    shutil.move(path / name, elsewhere)
    (path / name).symlink_to(elsewhere)
    refused(path, name, f"leads out of the bundle, to {elsewhere}")


def test_nor_a_link_of_a_whole_folder(path, tmp_path):
    shutil.move(path / "packages", tmp_path / "elsewhere")
    (path / "packages").symlink_to(tmp_path / "elsewhere")
    refused(path, "leads out of the bundle")


def test_links_within_the_bundle_are_fine_and_so_is_a_link_to_it(path, tmp_path):
    shutil.move(path / "packages", path / "..data")
    (path / "packages").symlink_to("..data")
    shutil.move(path / "weights.bin", path / "blob")
    (path / "weights.bin").symlink_to("blob")
    (tmp_path / "latest").symlink_to("bundle")
    Bundle.open(tmp_path / "latest").verify_files()


def test_no_bundle_at_all(tmp_path):
    refused(tmp_path, "manifest.json: no such file: not a bundle, or its bake has not finished")
    refused(tmp_path / "gone", "no such folder")
    (tmp_path / "file").write_bytes(b"")
    refused(tmp_path / "file")


@pytest.mark.parametrize("name", ["manifest.json", "weights.json"])
@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (b"", "not JSON"),
        (b"[1]", ""),
        (b"null", ""),
        (b"\xff\xfe{}", "not JSON"),
        (b"\xef\xbb\xbf{}", "not JSON"),
        (b'{"format": 1, "format": 1}', "format stands twice in one object"),
        (b'{"format": NaN}', "NaN is no number"),
        (b'{"format": ' + b"9" * 5000 + b"}", "not JSON"),
        (b'{"format": 1, "name": "\\ud800"}', "not JSON"),
        (b'{"\\ud800": 1}', "not JSON"),
        (b'{"format": 1e999}', ""),
        (b"[" * 200_000, "nested too deeply"),
        (b'{"a":' * 200_000, "nested too deeply"),
        (b'{"format": 1}', ""),
    ],
)
def test_json_that_is_none_or_too_clever_is_refused(path, name, raw, why):
    if name == "manifest.json":
        rewrite(path, raw)
    else:
        (path / name).write_bytes(raw)
        manifest = msgspec.json.decode((path / "manifest.json").read_bytes())
        manifest["files"][name] = msgspec.to_builtins(bundles.file_of(raw))
        rewrite(path, json.dumps(manifest).encode())
    refused(path, name, why)


def test_a_manifest_without_end_is_not_read(path):
    with (path / "manifest.json").open("r+b") as file:
        file.truncate(2**40)
    refused(path, "manifest.json: more than")


# Fuzz


@settings(deadline=None)
@given(data=st.data())
def test_a_flipped_bit_is_noticed_wherever_it_is(anew, data):
    name = data.draw(st.sampled_from([name for name in FILES if name != "weights.bin"]))
    file = write(anew) / name
    flip(file, data.draw(st.integers(0, file.stat().st_size - 1)), 1 << data.draw(st.integers(0, 7)))
    refused(anew)


@settings(deadline=None)
@given(data=st.data())
def test_a_file_cut_anywhere_is_noticed(anew, data):
    file = write(anew) / data.draw(st.sampled_from(FILES))
    os.truncate(file, data.draw(st.integers(0, file.stat().st_size - 1)))
    refused(anew)


@settings(deadline=None)
@given(data=st.data())
def test_bytes_that_were_sealed_wrong_are_right_or_refused(anew, data):
    raw = bytearray((write(anew) / "manifest.json").read_bytes())
    at = data.draw(st.integers(0, len(raw) - 1))
    raw[at : at + data.draw(st.integers(0, 20))] = data.draw(st.binary(max_size=20))
    rewrite(anew, bytes(raw))
    with contextlib.suppress(BundleError):
        Bundle.open(anew).verify_files()


def places(plain: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every value in a JSON document, by the keys that lead to it."""
    for key in plain if isinstance(plain, dict) else range(len(plain)) if isinstance(plain, list) else ():
        yield (*place, key)
        yield from places(plain[key], (*place, key))


numbers = [0, 1, -1, 1.5, 255, 2**31, 2**62, 2**63, 2**64, 2**200, -(2**63), 1e308]
texts = ["", ".", "..", "../../x.so", "/etc/passwd", "a\0b", "weights.bin", "x" * 70_000, "0" * 64]
odd = st.sampled_from([None, True, *numbers, *texts, [], {}, [[]], [1, 1], [-1, 2**40], {"": {}}])
values = odd | st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@settings(deadline=None)
@given(data=st.data(), name=st.sampled_from(["manifest", "index"]))
def test_any_value_anywhere_is_right_or_refused(anew, data, name):
    def change(plain: Any) -> None:
        place = data.draw(st.sampled_from(list(places(plain))))
        for key in place[:-1]:
            plain = plain[key]
        if data.draw(st.booleans()):
            plain[place[-1]] = data.draw(values)
        else:
            del plain[place[-1]]

    write(anew, **{name: change})
    try:
        bundle = Bundle.open(anew)
    except BundleError:
        return
    for package in bundle.manifest.packages:
        assert (anew / package.library).resolve().is_relative_to(anew.resolve())
        assert set(package.constants.values()) <= bundle.index.tensors.keys()
    for spec in bundle.index.tensors.values():
        last = sum((side - 1) * stride for side, stride in zip(spec.shape, spec.strides, strict=True))
        assert spec.offset % ALIGNMENT == 0
        assert 0 in spec.shape or 0 <= spec.offset + last <= len(WEIGHTS) - 1
        assert spec.offset + tensor_bytes(spec) <= len(WEIGHTS) or 0 in spec.shape


# Where it runs


@pytest.mark.parametrize(
    ("here", "words"),
    [
        ({}, []),
        ({"gpu": "NVIDIA H200", "compiler": "", "triton": None}, []),
        ({"cpu_flags": (*MACHINE.cpu_flags, "amx_tile")}, []),
        ({"torch": "2.11.0+cu126"}, ["2.11.0+cu130", "2.11.0+cu126", "install that build"]),
        ({"cuda": "12.6"}, ["13.0", "12.6", "install that build"]),
        ({"gpu": "NVIDIA A10G", "capability": "8.6"}, ["9.0 (NVIDIA H100 80GB HBM3)", "8.6 (NVIDIA A10G)", "bake it"]),
        ({"cpu_flags": ("avx2", "fma")}, ["avx512f", "bake it on this kind of CPU"]),
        ({"arch": "aarch64"}, ["x86_64", "aarch64", "bake it on this kind"]),
        ({"device": "cpu", "gpu": None, "capability": None}, ["baked for cuda", "--device cpu"]),
    ],
)
def test_a_bundle_says_why_it_does_not_fit(path, here, words):
    reasons = Bundle.open(path).unfit(msgspec.structs.replace(MACHINE, **here))
    assert len(reasons) == bool(words)
    for word in words:
        assert word in reasons[0]


def test_all_reasons_are_given_at_once(path):
    other = Machine("cpu", None, None, "2.13.0", None, "", None, (), "aarch64")
    assert len(Bundle.open(path).unfit(other)) == 4


def test_a_bundle_for_the_cpu_does_not_care_which_cuda_torch_knows(tmp_path):
    baked = msgspec.structs.replace(MACHINE, device="cpu", gpu=None, capability=None, cuda=None)
    assert make(tmp_path / "bundle", machine=baked).unfit(msgspec.structs.replace(baked, cuda="13.0")) == []


# What is documented


def test_the_schema_is_what_the_code_reads():
    committed = (ROOT / "docs" / "bundle.schema.json").read_text(encoding="utf-8")
    assert committed == schema(), (
        "python -c 'from predictor.engine.baked.manifest import schema; print(schema(), end=\"\")'"
    )


def test_the_example_is_a_bundle_that_opens(path):
    text = (ROOT / "docs" / "bundle.md").read_text(encoding="utf-8")
    for name in ("manifest.json", "weights.json"):
        example = text.split(f"<!-- {name} -->\n```json\n")[1].split("```")[0]
        assert json.loads(example) == json.loads((path / name).read_bytes())
