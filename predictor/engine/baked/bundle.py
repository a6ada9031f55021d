"""A bundle: a folder with compiled packages, one file of weights, and a manifest that says what they are and for whom.

Everything that a bundle says is checked before native code is given any of it; `docs/bundle.md` is the format.
"""

import hashlib
import json
import os
import stat
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from predictor.engine.baked import consistency
from predictor.engine.baked.consistency import seen
from predictor.engine.baked.manifest import (
    FORMAT,
    File,
    Machine,
    Manifest,
    Package,
    TensorSpec,
    WeightIndex,
)

__all__ = [
    "FORMAT",
    "Bundle",
    "BundleError",
    "File",
    "Machine",
    "Manifest",
    "Package",
    "TensorSpec",
    "WeightIndex",
    "open_regular",
    "seal",
]

MAX_JSON = 32 * 2**20  # bytes; a bundle of SDXL at a dozen sizes has 3 MB
PIECE = 2**20  # bytes hashed at a time
HASHERS = 4  # threads; packages are small, and others start beside

T = TypeVar("T")


class BundleError(ValueError):
    """A bundle is damaged, unfinished, or of another format; the message says where, and what to do."""


@dataclass(frozen=True)
class Bundle:
    """An opened bundle: what it says agrees with itself, and every file is there with its size.

    Contents are checked by `verify_files`, and those of weights.bin while they are read, by `WeightStream`.
    """

    path: Path
    manifest: Manifest
    index: WeightIndex

    @classmethod
    def open(cls, path: Path) -> "Bundle":
        """Raises BundleError; reads the two JSON files and the sizes of all others."""
        raw = _read(path, "manifest.json", MAX_JSON)
        parsed = _parse(path, "manifest.json", raw)
        _refuse_other_formats(path, parsed)
        if _read(path, "manifest.sha256", PIECE) != _checksum_line(raw):
            raise _damaged(path, "manifest.json", "its checksum is not the one in manifest.sha256")
        manifest = _convert(path, "manifest.json", parsed, Manifest)
        _raise_first(path, "manifest.json", consistency.of_manifest(manifest))
        _check_sizes(path, manifest)

        raw = _read(path, "weights.json", MAX_JSON)
        if hashlib.sha256(raw).hexdigest() != manifest.files["weights.json"].sha256:
            raise _damaged(path, "weights.json", "its checksum is not the one in manifest.json")
        index = _convert(path, "weights.json", _parse(path, "weights.json", raw), WeightIndex)
        _raise_first(path, "weights.json", consistency.of_weights(index, manifest))
        _raise_first(path, "manifest.json", consistency.of_constants(manifest, index))
        return cls(path, manifest, index)

    def verify_files(self) -> None:
        """Compare the checksum of every file but weights.bin; raises BundleError that names the first that differs."""
        with ThreadPoolExecutor(HASHERS, "hash") as pool:
            for _ in pool.map(self.verify, self.manifest.files):
                pass

    def unfit(self, machine: Machine) -> list[str]:
        """Why this bundle does not run on `machine`, each reason with both sides and what to do; empty if it does."""
        baked, reasons = self.manifest.machine, []
        if baked.device != machine.device:
            reasons.append(
                f"it is baked for {baked.device}, and {machine.device} is asked for: "
                f"bake one with --device {machine.device}"
            )
        if baked.arch != machine.arch:
            reasons.append(f"its code is for {baked.arch}, and this machine is {machine.arch}: bake it on this kind")
        if baked.torch != machine.torch:
            reasons.append(
                f"it needs torch {baked.torch} exactly, and torch {machine.torch} is installed: "
                "install that build, or bake it again with this one"
            )
        if baked.device == machine.device == "cuda":
            if baked.cuda != machine.cuda:
                reasons.append(
                    f"it needs a torch for CUDA {baked.cuda}, and the one installed is for CUDA {machine.cuda}: "
                    "install that build, or bake it again with this one"
                )
            if baked.capability != machine.capability:
                reasons.append(
                    f"its kernels are for compute capability {baked.capability} ({baked.gpu}), and this GPU has "
                    f"{machine.capability} ({machine.gpu}): bake it on this kind of GPU"
                )
        if missing := sorted(set(baked.cpu_flags) - set(machine.cpu_flags)):
            reasons.append(
                f"its code may use {', '.join(missing)}, which this CPU does not have: bake it on this kind of CPU"
            )
        return reasons

    def verify(self, name: str) -> None:
        """Compare the checksum of one file of the manifest; raises BundleError if it differs."""
        expected = self.manifest.files[name]
        digest, left = hashlib.sha256(), expected.size
        try:
            with os.fdopen(open_regular(self.path / name), "rb", buffering=0) as file:
                while left and (piece := file.read(min(left, PIECE))):
                    digest.update(piece)
                    left -= len(piece)
        except OSError as error:
            raise _damaged(self.path, name, error.strerror or str(error)) from None
        if left:
            raise _damaged(self.path, name, f"{expected.size - left} bytes; manifest.json says {expected.size}")
        if digest.hexdigest() != expected.sha256:
            raise _damaged(self.path, name, "its checksum is not the one in manifest.json")


def seal(path: Path, manifest: Manifest) -> None:
    """Write manifest.json and its checksum, after every other file is there: what makes a folder a bundle."""
    raw = msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n"
    (path / "manifest.sha256").write_bytes(_checksum_line(raw))
    (path / "manifest.json").write_bytes(raw)


def open_regular(path: Path) -> int:
    """A descriptor to read a file with; OSError if there is none, or something at which a reader could wait."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(None, "not a file")
    return descriptor


def _read(path: Path, name: str, limit: int) -> bytes:
    """A whole file of at most `limit` bytes."""
    try:
        with os.fdopen(open_regular(_inside(path, name)), "rb") as file:
            raw = file.read(limit + 1)
    except FileNotFoundError:
        if name != "manifest.json":
            raise _damaged(path, name, "no such file") from None
        why = "no such file: not a bundle, or its bake has not finished" if path.is_dir() else "no such folder"
        raise _damaged(path, name, why) from None
    except OSError as error:
        raise _damaged(path, name, error.strerror or str(error)) from None
    if len(raw) > limit:
        raise _damaged(path, name, f"more than {limit} bytes")
    return raw


def _parse(path: Path, name: str, raw: bytes) -> Any:
    """JSON, and nothing that Python would add to it or overlook in it."""
    try:
        parsed = json.loads(raw.decode(), object_pairs_hook=_unique, parse_constant=_no_number)
        msgspec.json.encode(parsed)  # refuses halves of surrogate pairs, which no file name and no terminal can take
    except RecursionError:
        raise _damaged(path, name, "nested too deeply") from None
    except (ValueError, OverflowError) as error:
        raise _damaged(path, name, f"not JSON: {error}") from None
    return parsed


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        names = [key for key, _ in pairs]
        raise ValueError(f"{seen(next(key for key in names if names.count(key) > 1))} stands twice in one object")
    return members


def _no_number(text: str) -> None:
    raise ValueError(f"{text} is no number")


def _refuse_other_formats(path: Path, parsed: Any) -> None:
    said = parsed.get("format") if isinstance(parsed, dict) else None
    if type(said) is not int:
        raise _damaged(path, "manifest.json", f"format: {seen(repr(said))}; expected {FORMAT}")
    if said > FORMAT:
        raise BundleError(
            f"{path / 'manifest.json'}: format: {seen(str(said))}; this sdzero reads {FORMAT}. "
            "Upgrade sdzero, or bake it again with this one"
        )
    if said < FORMAT:
        raise _damaged(path, "manifest.json", f"format: {seen(str(said))}; this sdzero reads {FORMAT}")


def _convert(path: Path, name: str, parsed: Any, kind: type[T]) -> T:
    try:
        return msgspec.convert(parsed, kind)
    except (msgspec.ValidationError, OverflowError) as error:
        raise _damaged(path, name, str(error)) from None


def _check_sizes(path: Path, manifest: Manifest) -> None:
    """Of every file but the manifest. One system call each: hundreds of kernels may be there."""
    sizes = {name: file.size for name, file in manifest.files.items()} | {"weights.bin": manifest.weights_size}
    folders: dict[str, Path] = {}
    for name, size in sizes.items():
        folder, _, last = name.rpartition("/")
        if folder not in folders:
            folders[folder] = _inside(path, folder)
        try:
            found = os.lstat(f"{folders[folder]}/{last}")
            if stat.S_ISLNK(found.st_mode):
                found = _inside(path, name).stat()
        except OSError as error:
            raise _damaged(path, name, error.strerror or str(error)) from None
        if not stat.S_ISREG(found.st_mode):
            raise _damaged(path, name, "not a file")
        if found.st_size != size:
            raise _damaged(path, name, f"{found.st_size} bytes; manifest.json says {size}")


def _inside(path: Path, name: str) -> Path:
    """Where a file or folder of the bundle really is; BundleError if a link leads out of the bundle."""
    root, real = Path(os.path.realpath(path)), Path(os.path.realpath(path / name))
    if not real.is_relative_to(root):
        raise _damaged(path, name, f"leads out of the bundle, to {seen(str(real))}")
    return real


def _raise_first(path: Path, name: str, contradictions: Iterable[str]) -> None:
    for contradiction in contradictions:
        raise _damaged(path, name, contradiction)


def _checksum_line(raw: bytes) -> bytes:
    """What `sha256sum manifest.json` prints."""
    return f"{hashlib.sha256(raw).hexdigest()}  manifest.json\n".encode()


def _damaged(path: Path, name: str, why: str) -> BundleError:
    return BundleError(f"{path}/{seen(name)}: {why}. Copy it again, or bake it again: sdzero bake MODEL --out {path}")
