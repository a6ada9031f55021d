"""What a benchmark says of the lean engine's bundle: its size on disk and how long its bake took."""

from pathlib import Path

import msgspec

from predictor.lab.bench.eviction import files_under
from predictor.lab.bench.results import BundleFacts


class _Manifest(msgspec.Struct):
    bake_seconds: float | None = None


def describe(bundle: Path) -> BundleFacts:
    """Sizes of its files, and `bake_seconds` of its manifest.json where that has one.

    Raises:
        ValueError: the manifest is no JSON object, or its `bake_seconds` is no number.
    """
    manifest = bundle / "manifest.json"
    try:
        said = msgspec.json.decode(manifest.read_bytes(), type=_Manifest) if manifest.is_file() else _Manifest()
    except msgspec.DecodeError as error:
        raise ValueError(f"{manifest}: {error}") from None
    size = sum(path.stat().st_size for path in files_under([bundle]))
    return BundleFacts(name=bundle.resolve().name, bytes=size, bake_seconds=said.bake_seconds)
