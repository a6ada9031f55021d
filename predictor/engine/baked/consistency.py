"""What a bundle's manifest and weight index must agree on: pure, and checked before native code sees any of it.

Each function yields the contradictions that it finds, as "field: what came; what is expected".
"""

import math
from collections import Counter
from collections.abc import Iterator

from predictor.engine.baked.manifest import ALIGNMENT, ITEM_SIZES, Manifest, Package, TensorSpec, WeightIndex

UNLISTED = ("manifest.json", "manifest.sha256", "weights.bin")  # checked by other means than `Manifest.files`
NEEDED = ("weights.json", "model/model_index.json")
SEEN = 80  # characters of a wrong value that a message repeats


def of_manifest(manifest: Manifest) -> Iterator[str]:
    """Of a manifest with itself."""
    yield from _files(manifest)
    yield from _machine(manifest)
    names = Counter(package.name for package in manifest.packages)
    for name, count in names.items():
        if count > 1:
            yield f"packages: {count} are called {name}; expected one"
    for number, package in enumerate(manifest.packages):
        for text in _package(package, manifest):
            yield f"packages[{number}].{text}"
    yield from _kinds(manifest)
    for sampler, count in Counter(manifest.samplers).items():
        if count > 1:
            yield f"samplers: {sampler} stands there {count} times; expected once"


def of_weights(index: WeightIndex, manifest: Manifest) -> Iterator[str]:
    """Of a weight index with itself; and of the manifest with it, where what the manifest says is wrong."""
    if index.size != manifest.weights_size:
        yield f"size: {index.size}; manifest.json says {manifest.weights_size}"
    chunks = -(-index.size // index.chunk)
    if len(index.sha256) != chunks:
        yield f"sha256: {len(index.sha256)} chunks; {index.size} bytes in chunks of {index.chunk} are {chunks}"
    before, end = "", 0
    for name, spec in sorted(index.tensors.items(), key=lambda item: (item[1].offset, item[0])):
        where = f"tensors[{seen(name)}]"
        if problem := _tensor(spec):
            yield f"{where}.{problem}"
            continue
        size = tensor_bytes(spec)
        if spec.offset + size > index.size:
            yield f"{where}: ends at byte {spec.offset + size}; weights.bin has {index.size}"
        elif size and spec.offset < end:
            yield f"{where}.offset: {spec.offset}; {seen(before)} lies there, up to byte {end}"
        elif size:
            before, end = name, spec.offset + size


def of_constants(manifest: Manifest, index: WeightIndex) -> Iterator[str]:
    """Weights that a package wants and weights.json does not have."""
    for number, package in enumerate(manifest.packages):
        for missing in sorted(set(package.constants.values()) - index.tensors.keys())[:1]:
            yield f"packages[{number}].constants: {seen(missing)} of {package.name} is not in weights.json"


def tensor_bytes(spec: TensorSpec) -> int:
    """From its first element to the end of its last, 0 without elements."""
    if not all(spec.shape):
        return 0
    last = sum((side - 1) * stride for side, stride in zip(spec.shape, spec.strides, strict=True))
    return (last + 1) * ITEM_SIZES[spec.dtype]


def seen(text: str) -> str:
    """A name from a file, fit for a message: quoted where it holds what a terminal would act on, and not too long."""
    shown = text if text.isprintable() and text.strip() else ascii(text)
    return shown if len(shown) <= SEEN else f"{shown[:SEEN]}…"


def _files(manifest: Manifest) -> Iterator[str]:
    for name in manifest.files:
        inside = name.isprintable() and "\\" not in name and not {"", ".", ".."} & set(name.split("/"))
        if not inside or name in UNLISTED:
            yield f"files: {seen(name)}; expected paths relative to the bundle, without `..`, of its other files"
    for name in NEEDED:
        if name not in manifest.files:
            yield f"files: {name} is not among them"


def _machine(manifest: Manifest) -> Iterator[str]:
    machine = manifest.machine
    if machine.device == "cuda":
        for field in ("gpu", "capability", "cuda"):
            if getattr(machine, field) is None:
                yield f"machine.{field}: null; a bundle for cuda names it"


def _package(package: Package, manifest: Manifest) -> Iterator[str]:
    if package.library not in manifest.files or not package.library.endswith(".so"):
        yield f"library: {seen(package.library)}; expected a .so among `files`"
    for field in ("images", "evaluations"):
        least, most = getattr(package, field)
        if least > most:
            yield f"{field}: {least} to {most}; expected the smaller first"
    height, width = package.height, package.width
    if package.kind == "text":
        if (height, width) != (0, 0) or package.images != (1, 1):
            yield f"kind: text of {height}x{width} and {package.images} images; expected 0x0 and one prompt at a time"
    elif not height or not width or height % manifest.scale or width % manifest.scale:
        yield f"height, width: {height}x{width}; expected multiples of scale, {manifest.scale}"
    if package.kind != "step":
        if package.evaluations != package.images:
            yield f"evaluations: {package.evaluations}; only a step's may differ from its images, {package.images}"
        return
    if package.images[1] > manifest.max_rows:
        yield f"images: up to {package.images[1]}; max_rows is {manifest.max_rows}"
    if package.evaluations[1] < 2 * package.images[1]:
        yield (
            f"evaluations: up to {package.evaluations[1]}; guidance needs two for each of up to "
            f"{package.images[1]} images"
        )


def _kinds(manifest: Manifest) -> Iterator[str]:
    """A bundle must be able to draw each of its sizes from text to pixels."""
    kinds: dict[tuple[int, int], set[str]] = {}
    for package in manifest.packages:
        kinds.setdefault((package.height, package.width), set()).add(package.kind)
    if "text" not in kinds.pop((0, 0), set()):
        yield "packages: none encodes text"
    if not kinds:
        yield "packages: none makes a step"
    for (height, width), there in kinds.items():
        for kind in ("step", "decode"):
            if kind not in there:
                yield f"packages: no {kind} for {height}x{width}; {', '.join(sorted(there))} is there"


def _tensor(spec: TensorSpec) -> str | None:
    if len(spec.shape) != len(spec.strides):
        return f"strides: {len(spec.strides)} of them; shape has {len(spec.shape)} dimensions"
    if spec.offset % ALIGNMENT:
        return f"offset: {spec.offset}; expected a multiple of {ALIGNMENT}"
    if tensor_bytes(spec) < math.prod(spec.shape) * ITEM_SIZES[spec.dtype]:
        return f"strides: {list(spec.strides)}; elements of shape {list(spec.shape)} would overlap"
    return None
