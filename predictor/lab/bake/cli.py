"""`sdzero bake`: Turn a model folder into a bundle that serves without importing torch.

Its parts are compiled ahead of time for this kind of machine: the text encoder, the denoising step with guidance and
every sampler in it, the decoder, and a small decoder for previews. Weights go into one file, in the layout in which
they are read. Each compiled package is then run and compared with the model's own modules.
"""

import argparse
import datetime
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from predictor import __version__
from predictor.clock import now
from predictor.lab.bake.plan import MAX_ROWS, Size

if TYPE_CHECKING:
    from predictor.engine.baked.manifest import Machine
    from predictor.engine.folder import ModelFolder

EXAMPLES = """\
what it makes:
  manifest.json      what the bundle is and for which machine: `sdzero inspect BUNDLE` shows it
  packages/          compiled code: text, and for each size step-…-1 (one image), step-…-n (more), decode, preview
  weights.bin        every weight that serving needs, once; weights.json says where each lies
  model/             the model's tokenizers and configurations

examples:
  sdzero bake ./stable-diffusion-v1-5 --device cuda --out ./sd15.bundle
  sdzero bake ./sdxl --device cuda --size 1024x1024 --size 832x1216 --max-rows 8 --out ./sdxl.bundle
  sdzero bake predictor/models/shapes --device cpu --out ./shapes.bundle    # the demo model, minutes on two cores

A bundle runs on the kind of machine that baked it: same GPU architecture, same torch build, for a CPU the same
instruction set. Packages are kept in --cache by everything that their code depends on, weights excepted: another
checkpoint of the same architecture is baked in seconds. g++ must be installed.
"""


def main(argv: list[str]) -> int:
    """Bake; 0 if the bundle is complete, 1 if a package cannot be made or is wrong, 2 if what was asked cannot be."""
    arguments = _parser().parse_args(argv)
    from predictor.engine.baked.machine import MachineError
    from predictor.engine.folder import FolderError
    from predictor.engine.weights import WeightError
    from predictor.lab.bake.bundling import Occupied
    from predictor.lab.bake.children import BakeError

    try:
        _bake(arguments)
    except (FolderError, WeightError, MachineError, Occupied) as error:
        print(f"sdzero bake: {error}", file=sys.stderr)
        return 2
    except BakeError as error:
        print(f"sdzero bake: {error}", file=sys.stderr)
        print(f"{arguments.out} is unfinished; what was compiled is kept: try again with --force", file=sys.stderr)
        return 1
    return 0


def _bake(arguments: argparse.Namespace) -> None:
    from predictor.engine.baked.manifest import FORMAT, Manifest
    from predictor.engine.folder import ModelFolder
    from predictor.engine.samplers import SAMPLERS
    from predictor.lab.bake import build, inductor, plan
    from predictor.lab.bake.bundling import Unfinished
    from predictor.lab.bake.cache import Cache, default_folder
    from predictor.lab.bake.progress import Board

    begun = now()
    folder = ModelFolder.open(arguments.model)
    _refuse_unfit(folder, arguments.device)
    machine = _machine(arguments.device)
    jobs = plan.jobs(folder, arguments.device, arguments.size, arguments.max_rows, arguments.autotune)
    bundle = Unfinished.begin(arguments.out, arguments.force)
    for variable in inductor.foreign_compilers():
        print(f"{variable} is set and ignored: packages are compiled with g++", flush=True)
    parallel = arguments.jobs or build.parallel_jobs()
    print(f"{len(jobs)} packages for {machine.gpu or machine.arch}, {parallel} at a time", flush=True)
    board = Board([*(job.name for job in jobs), "weights"])
    with tempfile.TemporaryDirectory(prefix="sdzero-bake-") as folder_of_scratch:
        scratch = Path(folder_of_scratch)
        store = Cache(arguments.cache or default_folder())
        entries = build.compile_all(jobs, machine, store, board, parallel, scratch)
        from predictor.lab.bake import packing  # torch and diffusers, while nobody waits for them

        preview = scratch / "preview.safetensors"
        index, packages = packing.pack(bundle, folder, jobs, entries, preview, store.path, board)
        bundle.add_model(folder)
        if arguments.check:
            packing.check(bundle, folder, jobs, packages, preview, board)
    manifest = Manifest(
        format=FORMAT,
        sdzero=__version__,
        architecture=folder.architecture,
        name=folder.path.resolve().name,
        revision=folder.revision(),
        dtype=jobs[0].hidden_dtype,
        channels=jobs[0].channels,
        scale=jobs[0].scale,
        machine=machine,
        packages=packages,
        samplers=tuple(SAMPLERS),
        max_rows=arguments.max_rows,
        files=bundle.files(),
        weights_size=index.size,
        baked_at=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        bake_seconds=round(now() - begun, 1),
    )
    bundle.finish(manifest)
    print(f"{arguments.out}: {index.size / 1e6:.0f} MB of weights, baked in {manifest.bake_seconds:.0f} s")


def _refuse_unfit(folder: "ModelFolder", device: str) -> None:
    from predictor.engine.folder import FolderError
    from predictor.engine.load import not_steppable
    from predictor.lab.bake.plan import text_encoders

    if reason := not_steppable(folder):
        raise FolderError(f"{folder.path}: cannot be baked: {reason}; `sdzero serve-predictor` can run it as it is")
    for component in (*text_encoders(folder), "unet", "vae"):
        folder.weights(component, device == "cuda")


def _machine(device: Literal["cpu", "cuda"]) -> "Machine":
    from predictor.engine.baked.machine import MachineError, describe, with_compilers

    if shutil.which("g++") is None:
        raise MachineError("g++ is not installed, and every package is compiled with it: install g++")
    machine = with_compilers(describe(device))
    if device == "cuda" and machine.cuda is None:
        raise MachineError(f"--device cuda: torch {machine.torch} is built without CUDA; install one that has it")
    return machine


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="sdzero bake",
        description=__doc__.partition(": ")[2],
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("model", metavar="MODEL", type=Path, help="folder in diffusers format: Stable Diffusion 1.x, 2.x or SDXL")
    add("--device", required=True, choices=("cpu", "cuda"), help="cuda bakes float16, cpu float32")
    add("--out", required=True, type=Path, metavar="BUNDLE", help="folder to write")
    add("--force", action="store_true", help="replace another bundle, finished or not, in BUNDLE")
    add(
        "--size",
        action="append",
        default=[],
        type=_size,
        metavar="HEIGHTxWIDTH",
        help="size of pictures in pixels; may be given several times [the model's own]",
    )
    add(
        "--max-rows",
        type=_max_rows,
        default=16,
        metavar="N",
        help=f"images that share a step, 1 or 3 to {MAX_ROWS}; 1 leaves the package for several out [16]",
    )
    add("--jobs", type=_whole, metavar="N", help="packages compiled at once [a core and 4 GiB of memory for each]")
    add("--cache", type=Path, metavar="DIR", help="kept packages [$XDG_CACHE_HOME/sdzero/packages]")
    add(
        "--autotune",
        action="store_true",
        help="let the compiler try more variants of each kernel: many times slower to bake, sometimes faster to run",
    )
    add(
        "--no-check",
        dest="check",
        action="store_false",
        help="do not compare the packages with the model's own modules",
    )
    return parser


def _size(text: str) -> Size:
    try:
        return Size.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _max_rows(text: str) -> int:
    rows = _whole(text)
    # The package for several is exported with three images.
    if rows == 2 or rows > MAX_ROWS:
        raise argparse.ArgumentTypeError(f"got {text!r}; allowed: 1, 3 to {MAX_ROWS}")
    return rows


def _whole(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"got {text!r}; allowed: whole numbers from 1")
    return int(text)
