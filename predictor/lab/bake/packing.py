"""Compiled packages and a model's weights → the files of a bundle, and the proof that they go together."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import msgspec
from safetensors.torch import save_file

from predictor.engine.baked.manifest import Package, WeightIndex
from predictor.engine.folder import ModelFolder
from predictor.lab.bake import weights
from predictor.lab.bake.bundling import Unfinished
from predictor.lab.bake.cache import Entry
from predictor.lab.bake.check import Report, Request
from predictor.lab.bake.children import BakeError, ChildFailed, Children
from predictor.lab.bake.plan import Job
from predictor.lab.bake.progress import Board

# The order in which a start wants the weights.
KINDS = ("text", "step", "decode", "preview")


def pack(
    bundle: Unfinished,
    folder: ModelFolder,
    jobs: Sequence[Job],
    entries: Mapping[str, Entry],
    preview: Path,
    kept: Path,
    board: Board,
) -> tuple[WeightIndex, list[Package]]:
    """Write weights and packages, and to `preview` the preview decoder's weights, for `check`.

    `kept` is the folder with preview decoders of earlier bakes.

    Raises:
        WeightError: the model's files do not fit its configuration.
        PreviewError: the VAE gives nothing that a preview decoder could learn from.
    """
    device: Literal["cpu", "cuda"] = "cuda" if jobs[0].device == "cuda" else "cpu"
    board.tell("weights", "fitting", "the preview decoder")
    save_file(weights.preview_state(folder, device, kept), preview)
    board.tell("weights", "reading")
    sources = weights.components(folder, device == "cuda", preview)
    in_order = sorted(jobs, key=lambda job: KINDS.index(job.kind))
    board.tell("weights", "writing")
    index, constants = weights.write(
        bundle.path / "weights.bin",
        {job.name: entries[job.name] for job in in_order},
        sources,
        lambda written, expected: board.show("weights", f"{written / 1e6:.0f} of {expected / 1e6:.0f} MB"),
    )
    bundle.add_index(index)
    packages = bundle.add_packages(jobs, entries, constants)
    board.tell("weights", "done", f"{index.size / 1e6:.0f} MB in {len(index.tensors)} tensors")
    return index, packages


def check(
    bundle: Unfinished, folder: ModelFolder, jobs: Sequence[Job], packages: list[Package], preview: Path, board: Board
) -> None:
    """Run every package beside the model's own modules, in another process. Raises BakeError with what is wrong."""
    current = ["the check"]

    def on_stage(line: str) -> None:
        report = msgspec.json.decode(line, type=Report)
        current[0] = f"package {report.package}"
        board.tell(report.package, report.state, report.detail)

    request = Request(str(bundle.path), str(folder.path), str(preview), list(jobs), packages)
    told = preview.with_name("check.json")
    told.write_bytes(msgspec.json.encode(request))
    with Children() as children:
        try:
            children.run("predictor.lab.bake.check", [str(told)], os.environ, on_stage)
        except ChildFailed as error:
            raise BakeError(f"{current[0]}: its comparison with the model's own module {error}") from None
