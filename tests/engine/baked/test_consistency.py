"""What a manifest and a weight index must agree on; each contradiction is named by its field, in sealed bundles."""

from typing import Any

import pytest

from predictor.engine.baked.consistency import tensor_bytes
from tests.engine.baked.bundles import Change, make, refused, write

# What the manifest says


def package(number: int, **fields: Any) -> Change:
    return lambda manifest: manifest["packages"][number].update(fields)


def without(kind: str) -> Change:
    return lambda manifest: manifest.update(packages=[p for p in manifest["packages"] if p["kind"] != kind])


def in_files(*names: str) -> Change:
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


def tensor(name: str, **fields: Any) -> Change:
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
