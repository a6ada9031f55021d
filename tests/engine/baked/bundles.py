"""A small bundle whose packages are not code: valid in every respect that no machine is needed for."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from predictor.engine.baked.bundle import (
    FORMAT,
    Bundle,
    BundleError,
    File,
    Machine,
    Manifest,
    Package,
    TensorSpec,
    WeightIndex,
    seal,
)

Change = Callable[[Any], object]  # of plain JSON, in place

CHUNK = 4096
MACHINE = Machine(
    device="cuda",
    gpu="NVIDIA H100 80GB HBM3",
    capability="9.0",
    torch="2.11.0+cu130",
    cuda="13.0",
    compiler="g++ 12.2.0",
    triton="3.6.0",
    cpu_flags=("avx2", "avx512f", "fma"),
    arch="x86_64",
)
TENSORS = {
    "text_encoder.embeddings.weight": TensorSpec("float16", (40, 8), (8, 1), 0),
    "unet.conv_in.weight": TensorSpec("float16", (32, 4, 3, 3), (36, 1, 12, 4), 768),  # channels_last
    "unet.time.weight": TensorSpec("float32", (50, 20), (20, 1), 3072),  # reaches into the second chunk
    "vae.scale": TensorSpec("float32", (), (), 7168),
    "vae.conv_out.weight": TensorSpec("float16", (3, 200), (200, 1), 7424),
}
WEIGHTS = bytes(number * 7 % 251 for number in range(9000))  # three chunks, the last one short
MODEL = {
    "model/model_index.json": b'{"_class_name": "StableDiffusionPipeline"}\n',
    "model/scheduler/scheduler_config.json": b'{"num_train_timesteps": 1000}\n',
    "model/unet/config.json": b'{"cross_attention_dim": 8}\n',
}
_UNET = {"conv_in.weight": "unet.conv_in.weight", "time.weight": "unet.time.weight"}
_VAE = {"scale": "vae.scale", "conv_out.weight": "vae.conv_out.weight"}
PACKAGES = [
    Package(name, kind, f"packages/{name}/model.so", side, side, images, evaluations, constants)
    for name, kind, side, images, evaluations, constants in (
        ("text", "text", 0, (1, 1), (1, 1), {"embeddings.weight": "text_encoder.embeddings.weight"}),
        ("step-64x64-1", "step", 64, (1, 1), (2, 2), _UNET),
        ("step-64x64-n", "step", 64, (2, 8), (2, 16), _UNET),
        ("decode-64x64", "decode", 64, (1, 1), (1, 1), _VAE),
        ("preview-64x64", "preview", 64, (1, 1), (1, 1), {}),
    )
]
LIBRARIES = {package.library: f"compiled {package.name}\n".encode() * 20 for package in PACKAGES}


def write(
    path: Path, *, machine: Machine = MACHINE, manifest: Change | None = None, index: Change | None = None
) -> Path:
    """A bundle in the folder `path`; valid, or with its JSON changed while the checksums are right."""
    checksums = [hashlib.sha256(WEIGHTS[at : at + CHUNK]).hexdigest() for at in range(0, len(WEIGHTS), CHUNK)]
    said = msgspec.json.encode(WeightIndex(len(WEIGHTS), CHUNK, checksums, TENSORS))
    files = MODEL | LIBRARIES | {"weights.json": _changed(said, index)}
    for name, content in (files | {"weights.bin": WEIGHTS}).items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    seal(path, manifest_of(files, machine))
    if manifest is not None:
        rewrite(path, _changed((path / "manifest.json").read_bytes(), manifest))
    return path


def manifest_of(files: dict[str, bytes], machine: Machine = MACHINE) -> Manifest:
    return Manifest(
        format=FORMAT,
        sdzero="0.2.0",
        architecture="StableDiffusionPipeline",
        name="shapes",
        revision="0123456789abcdef",
        dtype="float16",
        channels=4,
        scale=8,
        machine=machine,
        packages=PACKAGES,
        samplers=("ddim", "euler"),
        max_rows=8,
        files={name: file_of(content) for name, content in sorted(files.items())},
        weights_size=len(WEIGHTS),
        baked_at="2026-01-02T03:04:05Z",
        bake_seconds=61.5,
    )


def file_of(content: bytes) -> File:
    return File(len(content), hashlib.sha256(content).hexdigest())


def rewrite(path: Path, raw: bytes) -> None:
    """Other bytes in place of manifest.json, with their right checksum."""
    (path / "manifest.json").write_bytes(raw)
    (path / "manifest.sha256").write_text(f"{hashlib.sha256(raw).hexdigest()}  manifest.json\n")


def make(path: Path, **changes: Any) -> Bundle:
    """The same, opened."""
    return Bundle.open(write(path, **changes))


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


def flip(file: Path, at: int, mask: int = 1) -> None:
    """Change bits of one byte."""
    content = bytearray(file.read_bytes())
    content[at] ^= mask
    file.write_bytes(content)


def _changed(raw: bytes, change: Change | None) -> bytes:
    if change is None:
        return raw
    plain = json.loads(raw)
    change(plain)
    return json.dumps(plain).encode()
