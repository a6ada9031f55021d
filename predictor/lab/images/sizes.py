"""What an image weighs: each layer as it lies on a node's disk, and as it is pulled.

    buildah push IMAGE oci:FOLDER:measured
    python -m predictor.lab.images.sizes FOLDER

prints MB on disk, MB compressed, and what made the layer, and then the sums. Source: OCI image layout and image
manifest specifications 1.1.
"""

import argparse
import gzip
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BLOCK = 2**20


@dataclass(frozen=True)
class Layer:
    """Bytes of the files with their headers, bytes that travel, and the instruction."""

    unpacked: int
    packed: int
    made_by: str


def main(argv: list[str]) -> int:
    """Print the table; 0."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("layout", type=Path)
    found = list(layers(parser.parse_args(argv).layout))
    for layer in [*found, Layer(sum(one.unpacked for one in found), sum(one.packed for one in found), "in all")]:
        print(f"{layer.unpacked / 1e6:8.1f} {layer.packed / 1e6:8.1f}  {layer.made_by}")
    return 0


def layers(layout: Path) -> Iterator[Layer]:
    """The layers of the only image in `layout`, those of its base first."""
    manifest = _json(layout, json.loads((layout / "index.json").read_text())["manifests"][0])
    history = [step for step in _json(layout, manifest["config"])["history"] if not step.get("empty_layer")]
    for layer, step in zip(manifest["layers"], history, strict=True):
        yield Layer(_unpacked(_blob(layout, layer)), layer["size"], instruction(step.get("created_by", "")))


def instruction(made_by: str) -> str:
    """What a history's entry says of the instruction, on one line that fits a screen."""
    return " ".join(made_by.removeprefix("/bin/sh -c ").removeprefix("#(nop) ").split())[:90]


def _unpacked(blob: Path) -> int:
    size = 0
    with gzip.open(blob) as file:
        while block := file.read(BLOCK):
            size += len(block)
    return size


def _json(layout: Path, descriptor: dict[str, Any]) -> Any:
    return json.loads(_blob(layout, descriptor).read_bytes())


def _blob(layout: Path, descriptor: dict[str, Any]) -> Path:
    algorithm, _, digest = str(descriptor["digest"]).partition(":")
    return layout / "blobs" / algorithm / digest


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
