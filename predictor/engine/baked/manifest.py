"""What a bundle says of itself: manifest.json and weights.json, as types with their ranges. `docs/bundle.md` explains.

Imports msgspec and the standard library only: it is read before anything else of a start.
"""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

FORMAT = 1  # raised whenever an older sdzero could misread a bundle
ALIGNMENT = 256  # of a tensor in weights.bin, bytes: what CUDA's allocator gives and every kernel may rely on

Kind = Literal["text", "step", "decode", "preview"]
Dtype = Literal["float32", "float16", "bfloat16", "int64", "int32", "uint8", "bool"]
ITEM_SIZES: dict[Dtype, int] = {
    "float32": 4,
    "float16": 2,
    "bfloat16": 2,
    "int64": 8,
    "int32": 4,
    "uint8": 1,
    "bool": 1,
}

# `(?!\n)`: Python's `$` also matches before a last newline.
Bytes = Annotated[int, Meta(ge=0, le=2**44)]
Extent = Annotated[int, Meta(ge=0, le=2**44)]  # a length or a stride, in elements
Count = Annotated[int, Meta(ge=1, le=4096)]
Pixels = Annotated[int, Meta(ge=0, le=2**16)]
Sha256 = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$(?!\n)")]
Word = Annotated[str, Meta(min_length=1, max_length=1000)]
PackageName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$(?!\n)")]
Moment = Annotated[str, Meta(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|\+00:00)$(?!\n)")]


class File(Struct, frozen=True, forbid_unknown_fields=True):
    """A file of the bundle: its bytes, and their SHA-256 in hex."""

    size: Bytes
    sha256: Sha256


class TensorSpec(Struct, frozen=True, forbid_unknown_fields=True):
    """A tensor in weights.bin: strides are in elements, `offset` is in bytes from the start of the file."""

    dtype: Dtype
    shape: Annotated[tuple[Extent, ...], Meta(max_length=16)]
    strides: Annotated[tuple[Extent, ...], Meta(max_length=16)]
    offset: Bytes


class WeightIndex(Struct, frozen=True, forbid_unknown_fields=True):
    """weights.json: size, checksums and tensors of weights.bin.

    `sha256` is one of every `chunk` bytes, the last of which may be fewer.
    """

    size: Annotated[int, Meta(ge=1, le=2**44)]
    chunk: Annotated[int, Meta(ge=4096, le=2**28, multiple_of=4096)]
    sha256: list[Sha256]
    tensors: dict[str, TensorSpec]


class Machine(Struct, frozen=True, forbid_unknown_fields=True):
    """What compiled code depends on, of the machine where it was compiled or of the one at hand.

    `compiler` and `triton` are recorded by a bake; nothing depends on them later.
    """

    device: Literal["cpu", "cuda"]
    gpu: Word | None  # NVIDIA H100 80GB HBM3
    capability: Annotated[str, Meta(pattern=r"^\d+\.\d+$(?!\n)")] | None  # 9.0
    torch: Word  # 2.11.0+cu130
    cuda: Word | None  # 13.0, that torch was built with
    compiler: str  # g++ 12.2.0
    triton: str | None
    cpu_flags: tuple[Word, ...]  # those of /proc/cpuinfo that a compiler may have used, sorted
    arch: Word  # x86_64


class Package(Struct, frozen=True, forbid_unknown_fields=True):
    """A compiled part of the pipeline.

    `library` is the path of the model's .so in the bundle. `height` and `width` are pixels of the picture, 0 for text.
    `images` and `evaluations` are the fewest and the most of one call: images, and rows of the UNet (where it is not
    a step, as many as images). `constants` maps the package's own name of each weight to a tensor of weights.json.
    """

    name: PackageName
    kind: Kind
    library: str
    height: Pixels
    width: Pixels
    images: tuple[Count, Count]
    evaluations: tuple[Count, Count]
    constants: dict[str, str]


class Manifest(Struct, frozen=True, forbid_unknown_fields=True):
    """manifest.json: `files` are all files but itself, its checksum and weights.bin, by their path in the bundle."""

    format: int
    sdzero: Word  # version that baked it
    architecture: Word  # the pipeline's class
    name: Word
    revision: Word  # of the model folder that was baked
    dtype: Literal["float16", "float32"]  # of the UNet
    channels: Annotated[int, Meta(ge=1, le=64)]  # of the latents
    scale: Annotated[int, Meta(ge=1, le=64)]  # pixels per latent
    machine: Machine
    packages: Annotated[list[Package], Meta(max_length=1000)]
    samplers: Annotated[tuple[Word, ...], Meta(min_length=1)]
    max_rows: Count  # images that one step takes
    files: Annotated[dict[str, File], Meta(max_length=100_000)]
    weights_size: Bytes
    baked_at: Moment
    bake_seconds: Annotated[float, Meta(ge=0, le=1e9)]


def schema() -> str:
    """JSON Schema of both files, as `docs/bundle.schema.json` has it."""
    _, kinds = msgspec.json.schema_components([Manifest, WeightIndex], ref_template="#/$defs/{name}")
    for kind in kinds.values():
        # From Python 3.13 on docstrings come without their indentation.
        kind["description"] = " ".join(kind["description"].split())
    document = {"$schema": "https://json-schema.org/draft/2020-12/schema", "$defs": kinds}
    return msgspec.json.format(msgspec.json.encode(document, order="deterministic"), indent=2).decode() + "\n"
