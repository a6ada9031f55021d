"""The CUDA runtime, driven with ctypes: one device, a stream per thread, copies that overlap.

Signatures: CUDA Runtime API reference (cuda_runtime_api.h). The library is the one that libtorch brought along.
"""

import ctypes
import threading
from collections.abc import Mapping, Sequence
from ctypes import c_char_p, c_int, c_size_t, c_uint, c_void_p
from typing import Any

from predictor.engine.baked.device import Array, Memory, address_of
from predictor.engine.baked.libtorch import NoMemory
from predictor.engine.baked.native import DeviceName, LibtorchError, loaded

TO_DEVICE, TO_HOST, ON_DEVICE = 1, 2, 3  # cudaMemcpyKind
NON_BLOCKING = 1  # cudaStreamNonBlocking
NO_TIMING = 2  # cudaEventDisableTiming
MEMORY_ALLOCATION = 2  # cudaErrorMemoryAllocation
PORTABLE = 1  # cudaHostRegisterPortable

_P = ctypes.POINTER
_CALLS: Mapping[str, Sequence[Any]] = {
    "Free": (c_void_p,),
    "Malloc": (_P(c_void_p), c_size_t),
    "MemGetInfo": (_P(c_size_t), _P(c_size_t)),
    "MemcpyAsync": (c_void_p, c_void_p, c_size_t, c_int, c_void_p),
    "MemsetAsync": (c_void_p, c_int, c_size_t, c_void_p),
    "HostRegister": (c_void_p, c_size_t, c_uint),
    "HostUnregister": (c_void_p,),
    "StreamCreateWithFlags": (_P(c_void_p), c_uint),
    "StreamDestroy": (c_void_p,),
    "StreamSynchronize": (c_void_p,),
    "StreamWaitEvent": (c_void_p, c_void_p, c_uint),
    "StreamIsCapturing": (c_void_p, _P(c_int)),
    "StreamEndCapture": (c_void_p, _P(c_void_p)),
    "EventCreateWithFlags": (_P(c_void_p), c_uint),
    "EventDestroy": (c_void_p,),
    "EventRecord": (c_void_p, c_void_p),
    "EventSynchronize": (c_void_p,),
}


class Cuda:
    """The first GPU that this process sees; torch's libraries must have been loaded.

    Raises:
        LibtorchError: there is no usable GPU; the message is CUDA's.
    """

    name: DeviceName = "cuda"

    def __init__(self) -> None:
        library = ctypes.CDLL(loaded("libcudart.so"))
        self._calls = {name: _declare(library, name, kinds) for name, kinds in _CALLS.items()}
        self._text = library.cudaGetErrorString
        self._text.restype = c_char_p
        self.call("Free", None)  # makes the context
        self._threads = threading.local()

    @property
    def stream(self) -> int:
        """The calling thread's own stream."""
        if not hasattr(self._threads, "stream"):
            self._threads.stream = Stream(self)
        stream: Stream = self._threads.stream
        return stream.handle

    def allocate(self, size: int) -> Memory:
        """Memory, not cleared. Raises NoMemory."""
        address = c_void_p()
        self.call("Malloc", ctypes.byref(address), max(1, size))
        assert address.value is not None
        return Memory(address.value, size, _Allocation(self, address.value))

    def clear(self, address: int, size: int) -> None:
        """Fill with zeros, in stream order."""
        self.call("MemsetAsync", address, 0, size, self.stream)

    def copy(self, target: int, source: int, size: int) -> None:
        """Bytes from one place of the device to another, in stream order."""
        self.call("MemcpyAsync", target, source, size, ON_DEVICE, self.stream)

    def upload(self, target: int, array: Array) -> None:
        """A contiguous array, in stream order; CUDA has taken its bytes by then, for they are not page-locked."""
        self.call("MemcpyAsync", target, address_of(array), array.nbytes, TO_DEVICE, self.stream)

    def download(self, source: int, array: Array) -> None:
        """Fill a contiguous array when the stream has come this far."""
        self.call("MemcpyAsync", address_of(array), source, array.nbytes, TO_HOST, self.stream)
        self.wait()

    def keep_up(self) -> None:
        """Wait for the work before the last call of this, so that the GPU always has the next piece queued."""
        if not hasattr(self._threads, "event"):
            self._threads.event = Event(self)
        else:
            self._threads.event.wait()
        self._threads.event.record(self.stream)

    def wait(self) -> None:
        """Wait for the calling thread's stream."""
        self.call("StreamSynchronize", self.stream)

    def capturing(self) -> int:
        """The calling thread's stream's cudaStreamCaptureStatus."""
        status = c_int()
        self.call("StreamIsCapturing", self.stream, ctypes.byref(status))
        return status.value

    def end_capture(self) -> None:
        """Give up what the calling thread's stream has captured; it may be used again."""
        self._calls["StreamEndCapture"](self.stream, ctypes.byref(c_void_p()))

    def free(self) -> int:
        """Bytes that the driver can still give."""
        free, total = c_size_t(), c_size_t()
        self.call("MemGetInfo", ctypes.byref(free), ctypes.byref(total))
        return free.value

    def call(self, name: str, *arguments: Any) -> None:
        """One function of the CUDA runtime; raises NoMemory or LibtorchError with its message."""
        if code := self._calls[name](*arguments):
            reason = f"cuda{name}: {self._text(code).decode()} ({code})"
            raise (NoMemory if code == MEMORY_ALLOCATION else LibtorchError)(reason)


class Stream:
    """A queue of work that runs beside the others."""

    def __init__(self, cuda: Cuda) -> None:
        made = c_void_p()
        cuda.call("StreamCreateWithFlags", ctypes.byref(made), NON_BLOCKING)
        self._cuda, self.handle = cuda, made.value or 0

    def __del__(self) -> None:
        self._cuda.call("StreamDestroy", self.handle)


class Event:
    """A place in a stream."""

    def __init__(self, cuda: Cuda) -> None:
        made = c_void_p()
        cuda.call("EventCreateWithFlags", ctypes.byref(made), NO_TIMING)
        self._cuda, self._handle = cuda, made.value or 0

    def record(self, stream: int) -> None:
        """Put it behind all that `stream` holds."""
        self._cuda.call("EventRecord", self._handle, stream)

    def wait(self) -> None:
        """Until the stream has passed it."""
        self._cuda.call("EventSynchronize", self._handle)

    def __del__(self) -> None:
        self._cuda.call("EventDestroy", self._handle)


class _Allocation:
    def __init__(self, cuda: Cuda, address: int) -> None:
        self._cuda, self._address = cuda, address

    def __del__(self) -> None:
        self._cuda.call("Free", self._address)


def _declare(library: ctypes.CDLL, name: str, arguments: Sequence[Any]) -> Any:
    function = getattr(library, f"cuda{name}")
    function.argtypes, function.restype = tuple(arguments), c_int
    return function
