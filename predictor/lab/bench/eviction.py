"""A cold page cache without root: ask the kernel to forget files, and look whether it did.

`posix_fadvise(POSIX_FADV_DONTNEED)` drops clean pages that no process has mapped; some file systems ignore it.
mincore(2) tells which pages are there. Of files that the caller may not write the kernel says that all of them are, so
a user who is neither root nor owner of the files sees an eviction that did not work, never one that falsely did.
"""

import ctypes
import mmap
import os
import site
import sysconfig
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

import predictor

_STAYS: Final = 0.1  # with a larger share of the pages still there, a start is neither warm nor cold


@dataclass(frozen=True)
class Eviction:
    """What became of the pages of some files; evictions of different files can be added."""

    bytes: int = 0  # of the files
    evicted: int = 0  # bytes that were in the page cache and are not any more
    pages: int = 0
    resident: int = 0  # pages that are in the page cache all the same

    def __add__(self, other: "Eviction") -> "Eviction":
        return Eviction(
            self.bytes + other.bytes,
            self.evicted + other.evicted,
            self.pages + other.pages,
            self.resident + other.resident,
        )

    @property
    def resident_share(self) -> float:
        """Of the pages, afterwards."""
        return self.resident / self.pages if self.pages else 0.0

    @property
    def worked(self) -> bool:
        """Whether nearly all of the files must be read from storage now."""
        return self.resident_share <= _STAYS


def python_folders() -> list[Path]:
    """Where this interpreter's processes import from: the standard library, site-packages, and this package."""
    paths = sysconfig.get_paths()
    named = [*(paths[kind] for kind in ("stdlib", "platstdlib", "purelib", "platlib")), *site.getsitepackages()]
    return [Path(name) for name in named] + [Path(predictor.__path__[0])]


def files_under(places: Iterable[Path]) -> list[Path]:
    """Every regular file at or under `places`, once, though links lead to it; places that do not exist hold none."""
    found: dict[tuple[int, int], Path] = {}
    for place in places:
        below = (Path(parent, name) for parent, _, names in os.walk(place) for name in names)
        for path in [place] if place.is_file() else below:
            # Snapshots of a model hub are links to files elsewhere, and environments link among each other.
            if path.is_file():
                status = path.stat()
                found[status.st_dev, status.st_ino] = path
    return sorted(found.values())


def evict(files: Iterable[Path]) -> Eviction:
    """Drop the files from the page cache, as far as the kernel does it; one that has gone meanwhile has no pages."""
    return sum(map(_evict, files), start=Eviction())


def _evict(file: Path) -> Eviction:
    try:
        descriptor = os.open(file, os.O_RDONLY)
    except FileNotFoundError:
        return Eviction()
    try:
        length = os.fstat(descriptor).st_size
        if not length:
            return Eviction()
        before = _resident(descriptor, length)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        after = _resident(descriptor, length)
        if after:
            # Pages that were written stay until they are on storage; to wait for that with each file takes long.
            os.fdatasync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            after = _resident(descriptor, length)
    finally:
        os.close(descriptor)
    evicted = min(max(0, before - after) * mmap.PAGESIZE, length)
    return Eviction(length, evicted, -(-length // mmap.PAGESIZE), after)


def _resident(descriptor: int, length: int) -> int:
    """How many of the file's pages are in the page cache."""
    vector = (ctypes.c_ubyte * -(-length // mmap.PAGESIZE))()
    # ctypes takes the address of writable memory only; private copies are never made, for nothing is written.
    with mmap.mmap(descriptor, length, access=mmap.ACCESS_COPY) as pages:
        start = ctypes.c_char.from_buffer(pages)
        try:
            if _LIBC.mincore(ctypes.c_void_p(ctypes.addressof(start)), ctypes.c_size_t(length), vector):
                number = ctypes.get_errno()
                raise OSError(number, os.strerror(number))
        finally:
            del start  # the mapping cannot be closed while something points into it
    return int(np.count_nonzero(np.frombuffer(memoryview(vector), np.uint8) & 1))


_LIBC: Final = ctypes.CDLL(None, use_errno=True)
