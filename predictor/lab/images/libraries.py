"""Of torch and its CUDA libraries, what an image carries: found by what each library asks for, not by a list of names.

    python -m predictor.lab.images.libraries prune        torch as a CPU can use it, in place
    python -m predictor.lab.images.libraries split FOLDER torch and what only it needs, moved: a layer of their own
    python -m predictor.lab.images.libraries lean DEVICE SPLIT FOLDER
                                                          what the lean engine opens of that layer, copied

Source: System V ABI, chapter 5, "Dynamic Linking"; ld.so(8) for the order in which folders are searched.
"""

import argparse
import contextlib
import csv
import mmap
import shutil
import struct
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Literal

from predictor.lab.images.finish import HOME, NAME_ONLY, move, settle, site_packages, strip

LOAD, DYNAMIC = 1, 2  # p_type
NEEDED, STRTAB, RPATH, RUNPATH = 1, 5, 15, 29  # d_tag

# What the lean engine opens itself (predictor/engine/baked/libtorch.py).
ROOTS: Mapping[str, tuple[str, ...]] = {
    "cpu": ("libtorch_global_deps.so", "libtorch_cpu.so"),
    "cuda": ("libtorch_global_deps.so", "libtorch_cpu.so", "libtorch_cuda.so", "libtorch.so"),
}
# What those open by name while they compute, where no header says so: the parts of cuDNN, and NVRTC's.
LATER: Mapping[str, tuple[str, ...]] = {
    "cpu": (),
    "cuda": ("torch/lib/libcaffe2_nvrtc.so", "nvidia/*/lib/libcudnn_*.so.*", "nvidia/*/lib/libnvrtc-builtins.so.*"),
}
# Distributions beside torch that nothing but torch brings.
TORCHS_OWN = ("nvidia_", "triton-", "torch-")


def main(argv: list[str]) -> int:
    """Do what the command says; 0."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True, dest="command")
    commands.add_parser("prune")
    commands.add_parser("split").add_argument("folder", type=Path)
    lean = commands.add_parser("lean")
    lean.add_argument("device", choices=tuple(ROOTS))
    lean.add_argument("split", type=Path)
    lean.add_argument("folder", type=Path)
    given = parser.parse_args(argv)
    if given.command == "prune":
        prune(site_packages(HOME))
        return 0
    if given.command == "split":
        packages = site_packages(HOME)
        move(torchs_own(packages), Path("/"), given.folder)
        settle([HOME])
    else:
        packages = site_packages(given.split / HOME.relative_to("/"))
        new = given.folder / packages.relative_to(given.split)
        copy_lean(packages, new, given.device)
        # What is for CUDA stays as it came: no GPU has seen it otherwise.
        if given.device == "cpu":
            strip(new.rglob("*.so*"))
    settle([given.folder])
    return 0


def asks_for(library: Path) -> tuple[list[str], list[Path]]:
    """The libraries that `library` needs, by name, and the folders that it says to look for them in.

    Raises:
        ValueError: not a 64-bit little-endian ELF file with a dynamic section.
    """
    with library.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        if data[:6] != b"\x7fELF\x02\x01":
            raise ValueError(f"{library}: not a 64-bit little-endian ELF file")
        (headers,) = struct.unpack_from("<Q", data, 32)
        size, count = struct.unpack_from("<HH", data, 54)
        segments = [struct.unpack_from("<IIQQQQQQ", data, headers + size * index) for index in range(count)]
        dynamic = next(((s[2], s[5]) for s in segments if s[0] == DYNAMIC), None)
        if dynamic is None:
            raise ValueError(f"{library}: no dynamic section")
        entries = [struct.unpack_from("<QQ", data, at) for at in range(dynamic[0], sum(dynamic), 16)]
        table = next(value for tag, value in entries if tag == STRTAB)
        strings = next(s[2] + table - s[3] for s in segments if s[0] == LOAD and s[3] <= table < s[3] + s[5])

        def texts(*tags: int) -> Iterator[str]:
            for tag, value in entries:
                if tag in tags:
                    yield data[strings + value : data.find(b"\0", strings + value)].decode()

        origin = str(library.parent)
        folders = ":".join(texts(RPATH, RUNPATH)).replace("$ORIGIN", origin)
        return list(texts(NEEDED)), [Path(folder) for folder in folders.split(":") if folder]


def closure(roots: Iterable[Path]) -> set[Path]:
    """`roots` and every library that they need, directly or not, in the folders that they name.

    The operating system's own are not among them: those no library says where to look for.
    """
    found: set[Path] = set()
    left = [root.resolve() for root in roots]
    while left:
        library = left.pop()
        if library in found:
            continue
        found.add(library)
        needed, folders = asks_for(library)
        for name in needed:
            left += [(folder / name).resolve() for folder in folders if (folder / name).is_file()][:1]
    return found


def lean_libraries(packages: Path, device: Literal["cpu", "cuda"]) -> set[Path]:
    """All that the lean engine ever opens of torch and of its CUDA libraries."""
    later = [library for pattern in LATER[device] for library in packages.glob(pattern)]
    return closure([*(packages / "torch" / "lib" / name for name in ROOTS[device]), *later])


def copy_lean(packages: Path, new: Path, device: Literal["cpu", "cuda"]) -> None:
    """Copy these libraries to the same places below `new`, with what says where they come from."""
    kept = lean_libraries(packages, device)
    told = {packages / "torch" / "version.py"}
    for description in packages.glob("*.dist-info"):
        if not kept.isdisjoint(files_of(description)):
            told |= {file for file in description.rglob("*") if file.is_file() and file.name != "RECORD"}
    for file in kept | told:
        place = new / file.relative_to(packages.resolve())
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, place)
        place.chmod(0o644)
    # Where its libraries are, found by torch's name; its Python is not there.
    (new / "torch" / "__init__.py").write_text(NAME_ONLY.format(module="torch"), encoding="utf-8")


def prune(packages: Path) -> None:
    """Remove libraries that torch opens on a GPU alone, and distributions that have none left.

    Torch that was built for CUDA links to some of them, which therefore stay.
    """
    kept = closure([packages / "torch" / "lib" / "libtorch_python.so"])
    (packages / "torch" / "lib" / "libtorch_cuda_linalg.so").unlink(missing_ok=True)
    for description in [*packages.glob("nvidia_*.dist-info"), *packages.glob("triton-*.dist-info")]:
        files = files_of(description)
        remove([file for file in files - kept if description.resolve() not in file.parents], packages.resolve())
        if kept.isdisjoint(files):
            shutil.rmtree(description)


def remove(files: Iterable[Path], root: Path) -> None:
    """Remove `files`, their bytecode, and the folders below `root` that are empty then."""
    folders = set()
    for file in files:
        for path in (file, *file.parent.glob(f"__pycache__/{file.stem}.*.pyc")):
            path.unlink(missing_ok=True)
            folders |= {folder for folder in path.parents if root in folder.parents}
    for folder in sorted(folders, key=lambda folder: -len(folder.parts)):
        with contextlib.suppress(OSError):  # something else is in it
            folder.rmdir()


def torchs_own(packages: Path) -> list[Path]:
    """Folders and files of torch and of the distributions that only torch brings."""
    descriptions = [path for path in sorted(packages.glob("*.dist-info")) if path.name.startswith(TORCHS_OWN)]
    owned = {packages / file.relative_to(packages.resolve()).parts[0] for one in descriptions for file in files_of(one)}
    return sorted(path for path in owned if path.exists())


def files_of(description: Path) -> set[Path]:
    """The files below site-packages that a distribution's RECORD names (packaging.python.org, recording projects)."""
    packages = description.parent.resolve()
    with (description / "RECORD").open(encoding="utf-8", newline="") as file:
        paths = {(packages / row[0]).resolve() for row in csv.reader(file)}
    return {path for path in paths if path.is_relative_to(packages)}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
