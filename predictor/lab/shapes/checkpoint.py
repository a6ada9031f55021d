"""Checkpoints of the training: a folder of safetensors files that a crash at any moment leaves readable.

The files of a save carry its number in their names. `checkpoint.json` names them and is replaced last, in one rename;
only then are the files of the save before deleted. No file is larger than 16 MiB.
"""

import json
from pathlib import Path
from typing import Any, Final

import torch
from safetensors.torch import load_file, save_file

INDEX: Final = "checkpoint.json"

Tensors = dict[str, torch.Tensor]


def save_checkpoint(folder: Path, facts: dict[str, Any], parts: dict[str, Tensors]) -> None:
    """Write `parts` (file stem → tensors) and the JSON-able `facts` as the newest save in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    number = _index(folder).get("number", 0) + 1
    names = {part: f"{part}-{number:04d}.safetensors" for part in parts}
    for part, tensors in parts.items():
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, folder / names[part])
    draft = folder / f"{INDEX}.new"
    draft.write_text(json.dumps({"number": number, "files": names, "facts": facts}, indent=1) + "\n", encoding="utf-8")
    draft.replace(folder / INDEX)
    for stale in folder.glob("*.safetensors"):
        if stale.name not in names.values():
            stale.unlink()


def load_checkpoint(folder: Path, device: torch.device) -> tuple[dict[str, Any], dict[str, Tensors]] | None:
    """Facts and parts of the newest save, or None where there is none."""
    index = _index(folder)
    if not index:
        return None
    parts = {part: load_file(folder / name, device=str(device)) for part, name in index["files"].items()}
    return index["facts"], parts


def _index(folder: Path) -> dict[str, Any]:
    path = folder / INDEX
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return content
