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
from tests.engine.baked.bundles import LIBRARIES, MACHINE, MODEL, TENSORS, WEIGHTS, flip, make, rewrite, write

ROOT = Path(__file__).parents[3]
FILES = [*MODEL, *LIBRARIES, "weights.json", "weights.bin", "manifest.json", "manifest.sha256"]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write(tmp_path / "bundle")


@pytest.fixture(scope="module")
def anew(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the many bundles of one property are written, one over the other."""
    return tmp_path_factory.mktemp("fuzz") / "bundle"


def refused(path: Path, *words: str) -> str:
    """Why `path` is refused; the message names the bundle and says what to do."""
    with pytest.raises(BundleError) as caught:
        Bundle.open(path).verify_files()
    message = str(caught.value)
    assert str(path) in message
    assert f"sdzero bake MODEL --out {path}" in message or "Upgrade sdzero" in message
    assert message.isprintable()
    assert len(message) < 1000
    for word in words:
        assert word in message
    return message


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


# What the manifest says


def package(number: int, **fields: Any) -> bundles.Change:
    return lambda manifest: manifest["packages"][number].update(fields)


def without(kind: str) -> bundles.Change:
    return lambda manifest: manifest.update(packages=[p for p in manifest["packages"] if p["kind"] != kind])


def in_files(*names: str) -> bundles.Change:
    return lambda manifest: manifest["files"].update({name: {"size": 1, "sha256": "0" * 64} for name in names})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda m: m.update(format=2, news=1), ["format: 2", "reads 1", "Upgrade sdzero"]),
        (lambda m: m.update(format=0), ["format: 0", "reads 1", "bake it again"]),
        (lambda m: m.update(format="1"), ["format: '1'", "expected 1"]),
        (lambda m: m.update(format=True), ["format: True"]),
        (lambda m: m.update(format=10**400), ["format: 1000", "Upgrade sdzero"]),
        (lambda m: m.pop("format"), ["format: None"]),
        (lambda m: m.pop("samplers"), ["samplers"]),
        (lambda m: m.update(extra=1), ["unknown field `extra`"]),
        (lambda m: m["machine"].update(extra=1), ["unknown field `extra`", "$.machine"]),
        (lambda m: m.update(channels=0), ["$.channels", ">= 1"]),
        (lambda m: m.update(channels=4.5), ["$.channels", "`int`", "`float`"]),
        (lambda m: m.update(channels=True), ["$.channels", "`int`", "`bool`"]),
        (lambda m: m.update(max_rows=-3), ["$.max_rows"]),
        (lambda m: m.update(weights_size=2**80), ["$.weights_size"]),
        (lambda m: m.update(weights_size=9001), ["weights.bin: 9000 bytes; manifest.json says 9001"]),
        (lambda m: m.update(baked_at="yesterday"), ["$.baked_at"]),
        (lambda m: m.update(baked_at="2026-01-02T03:04:05Z\n"), ["$.baked_at"]),
        (lambda m: m.update(dtype="int8"), ["int8", "$.dtype"]),
        (lambda m: m.update(samplers=[]), ["$.samplers"]),
        (lambda m: m.update(samplers=["ddim", "ddim"]), ["samplers: ddim", "2 times"]),
        (lambda m: m["machine"].update(capability=None), ["machine.capability: null"]),
        (lambda m: m["machine"].update(device="tpu"), ["tpu", "$.machine.device"]),
        (without("text"), ["packages: none encodes text"]),
        (without("step"), ["packages: no step for 64x64; decode, preview is there"]),
        (without("decode"), ["packages: no decode for 64x64"]),
        (lambda m: m.update(packages=m["packages"][:1]), ["packages: none makes a step"]),
        (package(2, name="step-64x64-1"), ["2 are called step-64x64-1"]),
        (package(0, name="../text"), ["$.packages[0].name"]),
        (package(0, height=64, width=64), ["packages[0].kind: text of 64x64"]),
        (package(1, height=0), ["packages[1].height, width: 0x64"]),
        (package(1, width=65), ["packages[1].height, width: 64x65; expected multiples of scale, 8"]),
        (package(1, height=128), ["packages: no decode for 128x64"]),
        (package(1, images=[0, 1]), ["$.packages[1].images[0]"]),
        (package(1, images=[1]), ["$.packages[1].images"]),
        (package(2, images=[3, 2]), ["packages[2].images: 3 to 2"]),
        (package(2, images=[2, 9], evaluations=[2, 18]), ["packages[2].images: up to 9; max_rows is 8"]),
        (package(2, evaluations=[2, 15]), ["packages[2].evaluations: up to 15", "8 images"]),
        (package(3, evaluations=[1, 2]), ["packages[3].evaluations"]),
        (package(1, library="/lib/x86_64-linux-gnu/libc.so"), ["packages[1].library: /lib/x86_64-linux-gnu/libc.so"]),
        (package(1, library="packages/../../evil.so"), ["packages[1].library"]),
        (package(1, library="model/model_index.json"), ["packages[1].library"]),
        (package(1, constants={"a": "unet.gone"}), ["packages[1].constants: unet.gone of step-64x64-1"]),
        (in_files("../secret"), ["files: ../secret", "without `..`"]),
        (in_files("/etc/passwd"), ["files: /etc/passwd"]),
        (in_files("a//b"), ["files: a//b"]),
        (in_files("a\x00b"), [r"files: 'a\x00b'"]),
        (in_files("a\x1b[2Jb"), [r"files: 'a\x1b[2Jb'"]),
        (in_files("manifest.json"), ["files: manifest.json"]),
        (in_files("x" * 5000), ["x" * 80 + "…: File name too long"]),
        (in_files("model/gone.json"), ["model/gone.json: No such file"]),
        (in_files("model"), ["model: not a file"]),
        (lambda m: m["files"].pop("weights.json"), ["files: weights.json is not among them"]),
        (lambda m: m["files"]["weights.json"].update(sha256="0" * 64), ["weights.json: its checksum"]),
        (lambda m: m["files"]["weights.json"].update(sha256="0"), ["sha256", "$.files"]),
        (lambda m: m["files"]["weights.json"].update(size=-1), ["$.files"]),
    ],
)
def test_a_manifest_that_contradicts_itself_is_refused(tmp_path, change, words):
    refused(write(tmp_path / "bundle", manifest=change), *words)


# What the weight index says


def tensor(name: str, **fields: Any) -> bundles.Change:
    return lambda index: index["tensors"][name].update(fields)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda i: i.update(extra=1), ["unknown field `extra`"]),
        (lambda i: i.update(size=8999), ["size: 8999; manifest.json says 9000"]),
        (lambda i: i.update(chunk=0), ["$.chunk"]),
        (lambda i: i.update(chunk=5000), ["$.chunk", "multiple of 4096"]),
        (lambda i: i.update(chunk=2**40), ["$.chunk"]),
        (lambda i: i["sha256"].pop(), ["sha256: 2 chunks; 9000 bytes in chunks of 4096 are 3"]),
        (lambda i: i["sha256"].append("0" * 64), ["sha256: 4 chunks"]),
        (lambda i: i["tensors"].pop("vae.scale"), ["constants: vae.scale of decode-64x64"]),
        (tensor("vae.scale", dtype="complex64"), ["complex64"]),
        (tensor("vae.scale", offset=-256), ["offset"]),
        (tensor("vae.scale", offset=7169), ["tensors[vae.scale].offset: 7169; expected a multiple of 256"]),
        (tensor("vae.scale", offset=2**43), ["tensors[vae.scale]: ends at byte", "weights.bin has 9000"]),
        (tensor("vae.scale", offset=2**64), ["offset"]),
        (tensor("vae.scale", offset=3072), ["tensors[vae.scale].offset: 3072; unet.time.weight lies there"]),
        (tensor("unet.time.weight", shape=[2**44, 20]), ["ends at byte"]),
        (tensor("unet.time.weight", shape=[50, -20]), ["shape"]),
        (tensor("unet.time.weight", strides=[20, -1]), ["strides"]),
        (tensor("unet.time.weight", strides=[2**44, 1]), ["ends at byte"]),
        (tensor("unet.time.weight", strides=[20]), ["strides: 1 of them; shape has 2"]),
        (tensor("unet.time.weight", strides=[0, 1]), ["strides: [0, 1]", "overlap"]),
        (tensor("unet.time.weight", shape=[1] * 17, strides=[1] * 17), ["shape"]),
        (tensor("vae.conv_out.weight", shape=[4, 200]), ["tensors[vae.conv_out.weight]: ends at byte 9024"]),
        (tensor("unet.conv_in.weight", shape=[33, 4, 3, 3]), ["unet.time.weight].offset: 3072; unet.conv_in.weight"]),
    ],
)
def test_a_weight_index_that_leads_astray_is_refused(tmp_path, change, words):
    refused(write(tmp_path / "bundle", index=change), "weights.json", *words)


def test_a_tensor_without_elements_takes_no_place(tmp_path):
    empty = tensor("vae.scale", shape=[0, 2**44], strides=[2**44, 1], offset=7424)
    assert tensor_bytes(make(tmp_path / "bundle", index=empty).index.tensors["vae.scale"]) == 0


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
