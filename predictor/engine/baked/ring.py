"""Weights on their way from storage to the GPU: a ring of buffers that readers fill and one thread empties.

Reading starts before the GPU can be spoken to. Once it can, the ring is page-locked, so that copies run at the bus's
speed beside everything else.
"""

import ctypes
import mmap
import queue
from collections import deque

from predictor.engine.baked.cuda import PORTABLE, TO_DEVICE, Cuda, Event, Stream

SLOTS = 24


class Ring:
    """`Sink` of a `WeightStream` whose chunks have at most `chunk` bytes."""

    def __init__(self, chunk: int) -> None:
        self._chunk = chunk
        self._pages = mmap.mmap(-1, chunk * SLOTS)
        self._free: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        self._filled: queue.SimpleQueue[tuple[int, int, int] | None] = queue.SimpleQueue()  # slot, offset, bytes
        self._slots: dict[int, int] = {}  # offset in the file → slot
        self._stopped: BaseException | None = None
        for slot in range(SLOTS):
            self._free.put(slot)

    def buffer(self, offset: int, size: int) -> memoryview:
        """A free slot; waits for one. Raises what stopped the ring."""
        slot = self._free.get()
        if slot is None:
            self._free.put(None)  # for the next reader
            assert self._stopped is not None
            raise self._stopped
        self._slots[offset] = slot
        start = slot * self._chunk
        return memoryview(self._pages)[start : start + size]

    def deliver(self, offset: int, view: memoryview) -> None:
        """The slot of `offset` is filled and checked."""
        self._filled.put((self._slots.pop(offset), offset, len(view)))

    def stop(self, error: BaseException) -> None:
        """Nothing more will come, or nothing more is wanted: nobody waits any longer."""
        self._stopped = error
        self._free.put(None)
        self._filled.put(None)

    def drain(self, cuda: Cuda, target: int, total: int) -> None:
        """Copy what arrives to `target` + its offset until `total` bytes are on the device; runs in its own thread."""
        try:
            self._drain(cuda, target, total)
        except BaseException as error:
            self.stop(error)
            raise

    def _drain(self, cuda: Cuda, target: int, total: int) -> None:
        start = ctypes.addressof(ctypes.c_char.from_buffer(self._pages))
        cuda.call("HostRegister", start, len(self._pages), PORTABLE)
        stream = Stream(cuda)
        under_way: deque[tuple[Event, int]] = deque()
        while total or under_way:
            # Half of the ring may be under way while readers fill the other half.
            if under_way and (not total or len(under_way) > SLOTS // 2 or self._filled.empty()):
                event, slot = under_way.popleft()
                event.wait()
                self._free.put(slot)
                continue
            filled = self._filled.get()
            if filled is None:
                break
            slot, offset, size = filled
            cuda.call("MemcpyAsync", target + offset, start + slot * self._chunk, size, TO_DEVICE, stream.handle)
            event = Event(cuda)
            event.record(stream.handle)
            under_way.append((event, slot))
            total -= size
        cuda.call("HostUnregister", start)
