"""Safetensors files → memory, read by threads while the interpreter is busy importing.

The format is checked before a byte of it is trusted (https://github.com/huggingface/safetensors#format): eight bytes
of header length, a JSON header, then the tensors without gaps. No pickle is ever opened.
"""

import json
import math
import mmap
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from predictor.clock import now

CHUNK = 16 * 2**20  # bytes of one read: large enough for a disk, small enough to share a file among threads
MAX_HEADER = 100 * 2**20  # the reference implementation's own bound

ITEM_SIZES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}


class WeightError(ValueError):
    """A weight file is missing or not what its header says; the message names the file."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A tensor in its file: safetensors' name of its dtype, its shape, and its bytes from `start` to `end`."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


def read_header(path: Path) -> dict[str, Entry]:
    """The tensors of a safetensors file by name, in file order.

    Raises:
        WeightError: the file is missing, cut short, or inconsistent.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or not 2 <= length <= min(MAX_HEADER, size - 8):
                raise WeightError(f"{path}: {size} bytes, header of {length}: not a safetensors file, or cut short")
            header = json.loads(file.read(length))
    except OSError as error:
        raise WeightError(f"{path}: {error.strerror}") from None
    except ValueError as error:
        if isinstance(error, WeightError):
            raise
        raise WeightError(f"{path}: its header is not JSON: {error}") from None
    base, entries, expected = 8 + length, {}, 0
    try:
        header.pop("__metadata__", None)
        for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
            start, end = entry["data_offsets"]
            bytes_of_shape = ITEM_SIZES[entry["dtype"]] * math.prod(entry["shape"])
            if start != expected or end - start != bytes_of_shape:
                raise WeightError(
                    f"{path}: tensor {name} of {entry['dtype']} {entry['shape']} lies at bytes {start} to {end}; "
                    f"expected {expected} to {expected + bytes_of_shape}"
                )
            entries[name] = Entry(entry["dtype"], tuple(entry["shape"]), base + start, base + end)
            expected = end
    except (AttributeError, KeyError, TypeError) as error:
        raise WeightError(f"{path}: its header has an entry that is no tensor ({error!r})") from None
    if base + expected != size:
        raise WeightError(
            f"{path}: {size} bytes; its header promises {base + expected}: cut short, or something was added"
        )
    return entries


class WeightReader:
    """Threads that read files whole into anonymous memory, in the order given.

    Start it before the imports that need the weights; `wait` for a file when its tensors are wanted.
    """

    def __init__(self, paths: Sequence[Path], threads: int = 4) -> None:
        self.headers = {path: read_header(path) for path in paths}
        self.buffers = {path: mmap.mmap(-1, path.stat().st_size) for path in paths}
        self._left = {path: math.ceil(len(buffer) / CHUNK) for path, buffer in self.buffers.items()}
        self._chunks = iter(
            [(path, at) for path, buffer in self.buffers.items() for at in range(0, len(buffer), CHUNK)]
        )
        self._change = threading.Condition()
        self._error: WeightError | None = None
        self.finished: float | None = None  # when the last chunk was in memory, in seconds since boot
        for number in range(threads):
            threading.Thread(target=self._read, name=f"weights-{number}", daemon=True).start()

    def wait(self, path: Path) -> tuple[mmap.mmap, dict[str, Entry]]:
        """The file's bytes, whole, and where its tensors lie in them. Raises WeightError if it could not be read."""
        with self._change:
            self._change.wait_for(lambda: self._error or not self._left[path])
        if self._error:
            raise self._error
        return self.buffers[path], self.headers[path]

    def _read(self) -> None:
        while True:
            with self._change:
                path, at = next(self._chunks, (None, 0))
                if path is None or self._error:
                    return
            try:
                self._read_chunk(path, at)
            except OSError as error:
                with self._change:
                    self._error = WeightError(f"{path}: {error.strerror or error}")
                    self._change.notify_all()
                return
            with self._change:
                self._left[path] -= 1
                if not any(self._left.values()):
                    self.finished = now()
                self._change.notify_all()

    def _read_chunk(self, path: Path, at: int) -> None:
        view = memoryview(self.buffers[path])
        end = min(at + CHUNK, len(view))
        file = os.open(path, os.O_RDONLY)
        try:
            while at < end:
                read = os.preadv(file, [view[at:end]], at)
                if read == 0:
                    raise OSError(None, "grew shorter while it was read")
                at += read
        finally:
            os.close(file)
            view.release()
