"""A model folder in diffusers format: what is in it, and which of its files hold the weights.

Reads names and small JSON files only; weights are `weights`' business. Pickles are refused by name.
"""

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PICKLES = (".bin", ".ckpt", ".pt", ".pth", ".pkl", ".pickle")
# Not used for text-to-image here, and large: the safety checker is a classifier of finished pictures.
UNUSED = ("safety_checker", "feature_extractor", "image_encoder")


class FolderError(ValueError):
    """The folder is not a model that can be served; the message names the file and says why."""


@dataclass(frozen=True)
class ModelFolder:
    """`index` is model_index.json; `components` are the names in it that have a folder of their own."""

    path: Path
    index: dict[str, Any]
    components: tuple[str, ...]

    @classmethod
    def open(cls, path: Path) -> "ModelFolder":
        """Raises FolderError if there is no readable model_index.json."""
        index = read_json(path / "model_index.json")
        parts = (name for name, value in index.items() if isinstance(value, list) and value[0] and name not in UNUSED)
        return cls(path, index, tuple(parts))

    @property
    def architecture(self) -> str:
        """The pipeline's class name."""
        return str(self.index.get("_class_name"))

    def config(self, component: str) -> dict[str, Any]:
        """A component's configuration."""
        name = "scheduler_config.json" if component == "scheduler" else "config.json"
        return read_json(self.path / component / name)

    def models(self) -> list[str]:
        """Names of the components that have weights."""
        return [
            name for name in self.components if (self.path / name / "config.json").is_file() and name != "scheduler"
        ]

    def weights(self, component: str, half: bool) -> list[Path]:
        """The component's safetensors files: one, or its shards; the fp16 variant first where `half`.

        Raises:
            FolderError: there are none, or only pickles.
        """
        folder = self.path / component
        for variant in (".fp16", "") if half else ("", ".fp16"):
            for stem in ("diffusion_pytorch_model", "model"):
                index = folder / f"{stem}.safetensors.index{variant}.json"
                if index.is_file():
                    return sorted({folder / shard for shard in read_json(index)["weight_map"].values()})
                whole = folder / f"{stem}{variant}.safetensors"
                if whole.is_file():
                    return [whole]
        for file in sorted(folder.glob("*")):
            if file.suffix in PICKLES:
                raise FolderError(
                    f"{file}: a pickle can run code when it is loaded and is never opened; convert it to safetensors "
                    "(`save_pretrained(..., safe_serialization=True)` in diffusers)"
                )
        raise FolderError(f"{folder}: no weights; expected diffusion_pytorch_model.safetensors or model.safetensors")

    def revision(self) -> str:
        """Hex digest of what fixes the model: every JSON file, and of every weight file its size and 64 pages of it.

        Hashing gigabytes would cost seconds of every cold start; two models that differ, differ in more than a page.
        """
        digest = hashlib.sha256()
        for file in sorted(self.path.rglob("*")):
            if file.suffix not in (".json", ".txt", ".safetensors") or not file.is_file():
                continue
            size = file.stat().st_size
            digest.update(f"{file.relative_to(self.path)}\0{size}\0".encode())
            with file.open("rb") as opened:
                step = max(4096, size // 64)
                for offset in range(0, size, step):
                    digest.update(os.pread(opened.fileno(), 4096, offset))
        return digest.hexdigest()[:16]


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file; FolderError names the file otherwise."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise FolderError(f"{path}: {error.strerror}") from None
    except ValueError as error:
        raise FolderError(f"{path}: not JSON: {error}") from None
    if not isinstance(value, dict):
        raise FolderError(f"{path}: got {type(value).__name__}; expected a JSON object")
    return value
