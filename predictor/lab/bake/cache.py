"""Compiled packages that are kept for the next bake, each in a folder named by all that its code depends on.

An entry appears whole or not at all: it is made beside its place and renamed, so bakes may share a cache.
"""

import contextlib
import hashlib
import importlib.metadata
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from predictor.engine.baked.manifest import Dtype, Machine
from predictor.lab.bake.plan import Job


class Constant(msgspec.Struct, frozen=True):
    """A weight as the package expects it; strides in elements."""

    dtype: Dtype
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class Record(msgspec.Struct, frozen=True):
    """package.json: the model's library, SHA-256 of each file in `code`, the constants by their name in the module."""

    library: str
    files: dict[str, str]
    constants: dict[str, Constant]


@dataclass(frozen=True)
class Entry:
    """A compiled package: `code` holds what serving needs, `own.safetensors` constants that no checkpoint has."""

    path: Path
    record: Record

    @property
    def code(self) -> Path:
        """Folder of the library and its kernels."""
        return self.path / "code"

    @property
    def own(self) -> Path:
        """File with the constants that the code brings along."""
        return self.path / "own.safetensors"

    @classmethod
    def open(cls, path: Path) -> "Entry | None":
        """The entry if it is there and every file is what its record says."""
        try:
            record = msgspec.json.decode((path / "package.json").read_bytes(), type=Record)
            entry = cls(path, record)
            damaged = [name for name, wanted in record.files.items() if sha256(entry.code / name) != wanted]
        except (OSError, msgspec.DecodeError):
            return None
        return None if damaged else entry


@dataclass(frozen=True)
class Cache:
    """Entries in a folder, which need not exist."""

    path: Path

    def find(self, key: str) -> Entry | None:
        """The entry of this key; a damaged one is removed."""
        entry = Entry.open(self.path / key)
        if entry is None:
            shutil.rmtree(self.path / key, ignore_errors=True)
        return entry

    def keep(self, key: str, made: Path) -> Entry:
        """Move a finished entry into its place, or drop it where another bake was faster."""
        with contextlib.suppress(OSError):  # the place is taken
            made.rename(self.path / key)
        entry = Entry.open(self.path / key)
        if entry is None:
            raise OSError(None, f"{self.path / key}: cannot be written, or was damaged at once")
        shutil.rmtree(made, ignore_errors=True)
        return entry


def key_of(job: Job, machine: Machine, options: Sequence[tuple[str, object]], sources: Sequence[Path]) -> str:
    """Name of the job's entry: a hash of the job, the machine, inductor's options, libraries, and our own sources.

    The GPU's name is left out: code depends on its compute capability.
    """
    import torch

    libraries = torch.version.git_version, importlib.metadata.version("diffusers")
    named = msgspec.structs.replace(machine, gpu=None)
    digest = hashlib.sha256()
    for part in (job, named, list(options), libraries, [sha256(source) for source in sources]):
        digest.update(msgspec.json.encode(part, order="deterministic") + b"\0")
    return f"{job.kind}-{digest.hexdigest()[:32]}"


def sha256(path: Path) -> str:
    """Of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def default_folder() -> Path:
    """`$XDG_CACHE_HOME/sdzero/packages` (XDG Base Directory Specification)."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if Path(base).is_absolute() else Path.home() / ".cache") / "sdzero" / "packages"
