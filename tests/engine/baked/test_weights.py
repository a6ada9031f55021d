"""Weights arrive whole and right, or the first thing that is wrong with them is said."""

import ctypes
import mmap
import os
import queue
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from predictor.clock import now
from predictor.engine.baked.bundle import Bundle, BundleError
from predictor.engine.baked.weights import HostMemory, Sink, WeightStream
from tests.engine.baked.bundles import CHUNK, WEIGHTS, flip, make


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return make(tmp_path / "bundle")


@pytest.fixture(scope="module")
def anew(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz") / "bundle"


@pytest.fixture(autouse=True)
def _no_thread_is_left():
    yield
    for thread in threading.enumerate():
        if thread.name.startswith("weights-"):
            thread.join(timeout=30)
            assert not thread.is_alive()


def in_memory(memory: HostMemory, size: int = len(WEIGHTS)) -> bytes:
    return ctypes.string_at(memory.address, size)


class Slots:
    """A sink with one place for all: who wants it waits until the one before has delivered."""

    def __init__(self) -> None:
        self.place = bytearray(CHUNK)
        self.free: queue.SimpleQueue[None] = queue.SimpleQueue()
        self.free.put(None)
        self.delivered: list[tuple[int, bytes]] = []

    def buffer(self, offset: int, size: int) -> memoryview:
        self.free.get(timeout=30)
        return memoryview(self.place)[:size]

    def deliver(self, offset: int, view: memoryview) -> None:
        self.delivered.append((offset, bytes(view)))
        self.free.put(None)


@pytest.mark.parametrize("threads", [1, 2, 8])
def test_the_whole_file_lies_where_it_is_said(bundle, threads):
    memory, before = HostMemory(bundle.index.size), now()
    stream = WeightStream(bundle, memory, threads)
    stream.wait()
    assert in_memory(memory) == WEIGHTS
    assert memory.address % mmap.PAGESIZE == 0
    assert before <= stream.finished <= now()
    stream.wait()  # again, by somebody else
    memory.close()
    with pytest.raises(ValueError, match="closed"):
        memory.buffer(0, 1)


@pytest.mark.parametrize("threads", [1, 8])
def test_a_sink_may_make_readers_wait(bundle, threads):
    sink: Sink = (slots := Slots())
    WeightStream(bundle, sink, threads).wait()
    assert sorted(slots.delivered) == [(at, WEIGHTS[at : at + CHUNK]) for at in range(0, len(WEIGHTS), CHUNK)]


def test_a_read_may_bring_less_than_asked_for(bundle, monkeypatch):
    whole = os.preadv
    monkeypatch.setattr(os, "preadv", lambda file, views, at: whole(file, [views[0][:100]], at))
    memory = HostMemory(bundle.index.size)
    WeightStream(bundle, memory).wait()
    assert in_memory(memory) == WEIGHTS


def refused(bundle: Bundle, *words: str) -> None:
    stream = WeightStream(bundle, HostMemory(bundle.index.size))
    with pytest.raises(BundleError) as caught:
        stream.wait()
    assert stream.finished is None
    for word in ("weights.bin: ", "sdzero bake MODEL --out", *words):
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("at", "words"),
    [
        (0, ["chunk 0, bytes 0 to 4096", "text_encoder.embeddings.weight, unet.conv_in.weight, unet.time.weight"]),
        (5000, ["chunk 1, bytes 4096 to 8192", "unet.time.weight, vae.scale, vae.conv_out.weight"]),
        (8999, ["chunk 2, bytes 8192 to 9000", "in it lie vae.conv_out.weight."]),
    ],
)
def test_a_flipped_byte_is_found_in_its_chunk(bundle, at, words):
    flip(bundle.path / "weights.bin", at)
    refused(bundle, "its checksum is not the one in weights.json", *words)


@settings(deadline=None)
@given(at=st.integers(0, len(WEIGHTS) - 1), bit=st.integers(0, 7))
def test_so_is_any_flipped_bit(anew, at, bit):
    bundle = make(anew)
    flip(anew / "weights.bin", at, 1 << bit)
    refused(bundle, f"chunk {at // CHUNK}")


@pytest.mark.parametrize("size", [0, 1, CHUNK, len(WEIGHTS) - 1])
def test_a_file_that_shrinks_after_it_was_opened_is_refused(bundle, size):
    os.truncate(bundle.path / "weights.bin", size)
    refused(bundle, "grew shorter while it was read")


def test_a_file_that_goes_away_is_refused(bundle):
    (bundle.path / "weights.bin").unlink()
    refused(bundle, "No such file")
    os.mkfifo(bundle.path / "weights.bin")
    refused(bundle, "not a file")


def test_what_a_sink_raises_ends_the_stream_as_it_is(bundle):
    class Full(HostMemory):
        def deliver(self, offset: int, view: memoryview) -> None:
            raise MemoryError("no room on the device")

    stream = WeightStream(bundle, Full(bundle.index.size))
    with pytest.raises(MemoryError, match="no room on the device"):
        stream.wait()
    assert stream.finished is None


def test_no_threads_at_all_would_wait_for_ever(bundle):
    with pytest.raises(ValueError, match="threads: 0; expected at least 1"):
        WeightStream(bundle, Slots(), 0)
