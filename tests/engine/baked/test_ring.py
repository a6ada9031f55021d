"""Chunks through the ring. The GPU is stood in for by memory; a benchmark on one moves real weights."""

import ctypes
import random
import threading
from typing import Any

import pytest

from predictor.engine.baked import ring
from predictor.engine.baked.device import Host
from predictor.engine.baked.ring import SLOTS, Ring

CHUNK = 4096


class Stand:
    """CUDA's calls, done at once."""

    def __init__(self) -> None:
        self.locked: list[int] = []

    def call(self, name: str, *arguments: Any) -> None:
        if name == "MemcpyAsync":
            ctypes.memmove(*arguments[:3])
        elif name == "HostRegister":
            self.locked.append(arguments[1])
        elif name == "HostUnregister":
            self.locked.pop()


class Event:
    def __init__(self, cuda: Stand) -> None:
        """Nothing is ever under way."""

    def record(self, stream: int) -> None:
        """Nothing to mark."""

    def wait(self) -> None:
        """Nothing to wait for."""


class Stream:
    handle = 0

    def __init__(self, cuda: Stand) -> None:
        """One is as good as another."""


@pytest.mark.parametrize("chunks", [1, SLOTS - 1, SLOTS, 5 * SLOTS + 3])
def test_every_byte_arrives_however_many_readers_and_chunks(monkeypatch: pytest.MonkeyPatch, chunks: int) -> None:
    monkeypatch.setattr(ring, "Event", Event)
    monkeypatch.setattr(ring, "Stream", Stream)
    file = random.Random(chunks).randbytes((chunks - 1) * CHUNK + 100)
    target = Host().allocate(len(file))
    sink, cuda = Ring(CHUNK), Stand()
    numbers = iter(range(chunks))
    lock = threading.Lock()

    def read() -> None:
        while True:
            with lock:
                number = next(numbers, None)
            if number is None:
                return
            piece = file[number * CHUNK : (number + 1) * CHUNK]
            with sink.buffer(number * CHUNK, len(piece)) as view:
                view[:] = piece
                sink.deliver(number * CHUNK, view)

    readers = [threading.Thread(target=read) for _ in range(4)]
    for reader in readers:
        reader.start()
    sink.drain(cuda, target.address, len(file))  # type: ignore[arg-type]
    for reader in readers:
        reader.join()
    assert ctypes.string_at(target.address, len(file)) == file
    assert cuda.locked == [], "memory stays page-locked for as long as it is needed"


def test_a_reader_that_fails_ends_the_copying(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ring, "Stream", Stream)
    sink, cuda = Ring(CHUNK), Stand()
    drain = threading.Thread(target=sink.drain, args=(cuda, 0, CHUNK))
    drain.start()
    sink.stop(ValueError("damaged"))
    drain.join(30)
    assert not drain.is_alive()


def test_copying_that_fails_ends_the_readers() -> None:
    class Broken(Stand):
        def call(self, name: str, *arguments: Any) -> None:
            raise OSError("the bus is gone")

    sink = Ring(CHUNK)
    for number in range(SLOTS):
        sink.buffer(number * CHUNK, CHUNK).release()
    with pytest.raises(OSError, match="the bus is gone"):
        sink.drain(Broken(), 0, CHUNK)  # type: ignore[arg-type]
    for _ in range(2):
        with pytest.raises(OSError, match="the bus is gone"):
            sink.buffer(SLOTS * CHUNK, CHUNK)
