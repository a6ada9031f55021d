"""weights.bin → wherever the weights are wanted, read and checked by threads, chunk by chunk.

The order of the file is kept roughly: a chunk is begun when all before it have been begun.
"""

import ctypes
import hashlib
import mmap
import os
import threading
from typing import Protocol

from predictor.clock import now
from predictor.engine.baked.bundle import Bundle, BundleError, open_regular
from predictor.engine.baked.consistency import seen
from predictor.engine.resources import cores

THREADS = 8  # one core hashes about 1.5 GB/s, a fast disk gives several times that
NAMED = 3  # tensors that a message lists


class Sink(Protocol):
    """Where chunks go. Called by several threads at once; what it raises ends the stream."""

    def buffer(self, offset: int, size: int) -> memoryview:
        """A place for `size` bytes of the file from `offset` on; may wait for one."""
        ...

    def deliver(self, offset: int, view: memoryview) -> None:
        """The place that `buffer` gave for `offset` is filled and checked; the view is released afterwards."""
        ...


class HostMemory:
    """The simplest sink: page-aligned memory for the whole file, at `address`, until it is closed."""

    def __init__(self, size: int) -> None:
        self._pages = mmap.mmap(-1, size)
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(self._pages))

    def buffer(self, offset: int, size: int) -> memoryview:
        """The chunk's own place."""
        return memoryview(self._pages)[offset : offset + size]

    def deliver(self, offset: int, view: memoryview) -> None:
        """It is where it belongs."""

    def close(self) -> None:
        """Give the memory back; nothing may point into it any more."""
        self._pages.close()


class WeightStream:
    """Threads that read a bundle's weights into `sink`. They begin at once and end by themselves.

    `finished` is when the last chunk had been delivered, in seconds since boot.
    """

    def __init__(self, bundle: Bundle, sink: Sink, threads: int = THREADS) -> None:
        if threads < 1:
            raise ValueError(f"threads: {threads}; expected at least 1")
        self.finished: float | None = None
        self._bundle, self._sink = bundle, sink
        self._path = bundle.path / "weights.bin"
        self._chunks = iter(range(len(bundle.index.sha256)))
        self._working = min(threads, cores(), len(bundle.index.sha256))
        self._error: BaseException | None = None
        self._change = threading.Condition()
        for number in range(self._working):
            threading.Thread(target=self._work, name=f"weights-{number}", daemon=True).start()

    def wait(self) -> None:
        """Until every chunk has been delivered.

        Raises:
            BundleError: weights.bin cannot be read or is not what was baked; the message names the first chunk that
                was found so, and tensors in it. What the sink raised is raised as it is.
        """
        with self._change:
            self._change.wait_for(lambda: self._error is not None or not self._working)
            if self._error is not None:
                raise self._error

    def _work(self) -> None:
        try:
            file = self._open()
            try:
                while (chunk := self._next()) is not None:
                    self._take(file, chunk)
            finally:
                os.close(file)
        except BaseException as error:
            with self._change:
                self._error = self._error or error
        finally:
            with self._change:
                self._working -= 1
                if not self._working and self._error is None:
                    self.finished = now()
                self._change.notify_all()

    def _next(self) -> int | None:
        with self._change:
            return None if self._error is not None else next(self._chunks, None)

    def _open(self) -> int:
        try:
            return open_regular(self._path)
        except OSError as error:
            raise self._damaged(error.strerror or str(error)) from None

    def _take(self, file: int, chunk: int) -> None:
        index = self._bundle.index
        offset = chunk * index.chunk
        size = min(index.chunk, index.size - offset)
        with self._sink.buffer(offset, size) as view:
            try:
                _fill(file, view, offset)
            except OSError as error:
                raise self._damaged(f"chunk {chunk}: {error.strerror or error}") from None
            if hashlib.sha256(view).hexdigest() != index.sha256[chunk]:
                raise self._damaged(
                    f"chunk {chunk}, bytes {offset} to {offset + size}: its checksum is not the one in weights.json; "
                    f"{_names(self._bundle, offset, offset + size)}"
                )
            self._sink.deliver(offset, view)

    def _damaged(self, why: str) -> BundleError:
        return BundleError(
            f"{self._path}: {why}. Copy it again, or bake it again: sdzero bake MODEL --out {self._bundle.path}"
        )


def _fill(file: int, view: memoryview, offset: int) -> None:
    filled = 0
    while filled < len(view):
        with view[filled:] as rest:
            read = os.preadv(file, [rest], offset + filled)
        if read == 0:
            raise OSError(None, "grew shorter while it was read")
        filled += read


def _names(bundle: Bundle, start: int, end: int) -> str:
    """Which tensors lie, wholly or in part, between two bytes of the file."""
    by_place = sorted((spec.offset, name) for name, spec in bundle.index.tensors.items())
    following = [offset for offset, _ in by_place[1:]] + [bundle.index.size]
    names = [name for (at, name), until in zip(by_place, following, strict=True) if at < end and until > start]
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return f"in it lie {', '.join(map(seen, names[:NAMED]))}{more}" if names else "no tensor lies there"
