"""Memory and copies of the device that packages run on. The simplest device is the host itself."""

import ctypes
import mmap
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from predictor.engine.baked.native import DeviceName
from predictor.engine.resources import host_memory

if TYPE_CHECKING:  # numpy is imported while the device starts, not before
    from numpy.typing import NDArray

Array: TypeAlias = "NDArray[Any]"


class Memory:
    """A piece of a device's memory, freed with the last reference to it."""

    __slots__ = ("_owner", "address", "size")

    def __init__(self, address: int, size: int, owner: object) -> None:
        self.address, self.size, self._owner = address, size, owner


class Device(Protocol):
    """Where packages run. Copies and runs happen in the order in which one thread asked for them."""

    name: DeviceName

    @property
    def stream(self) -> int | None:
        """The CUDA stream of the calling thread."""
        ...

    def allocate(self, size: int) -> Memory:
        """Memory, not cleared, aligned to 256 bytes. Raises NoMemory."""
        ...

    def clear(self, address: int, size: int) -> None:
        """Fill with zeros."""
        ...

    def copy(self, target: int, source: int, size: int) -> None:
        """Bytes from one place of the device to another."""
        ...

    def upload(self, target: int, array: Array) -> None:
        """A contiguous array; it may be changed when this returns."""
        ...

    def download(self, source: int, array: Array) -> None:
        """Fill a contiguous array; waits for all that was asked for before."""
        ...

    def keep_up(self) -> None:
        """Wait until at most the work since the last call of this is outstanding."""
        ...

    def wait(self) -> None:
        """Wait for everything that was asked for."""
        ...

    def free(self) -> int:
        """Bytes that are free now."""
        ...


class Host:
    """The CPU: work is done when a call returns."""

    name: DeviceName = "cpu"
    stream: int | None = None

    def allocate(self, size: int) -> Memory:
        """Pages of this process; untouched ones cost nothing."""
        pages = mmap.mmap(-1, max(1, size))
        return Memory(ctypes.addressof(ctypes.c_char.from_buffer(pages)), size, pages)

    def clear(self, address: int, size: int) -> None:
        """Fill with zeros."""
        ctypes.memset(address, 0, size)

    def copy(self, target: int, source: int, size: int) -> None:
        """Bytes from one place to another."""
        ctypes.memmove(target, source, size)

    def upload(self, target: int, array: Array) -> None:
        """A contiguous array."""
        ctypes.memmove(target, address_of(array), array.nbytes)

    def download(self, source: int, array: Array) -> None:
        """Fill a contiguous array."""
        ctypes.memmove(address_of(array), source, array.nbytes)

    def keep_up(self) -> None:
        """Nothing is outstanding."""

    def wait(self) -> None:
        """Nothing is outstanding."""

    def free(self) -> int:
        """Bytes that the container or the machine can still give."""
        return host_memory()


def address_of(array: Array) -> int:
    """Where a contiguous array's first element is."""
    assert array.flags.c_contiguous
    return array.ctypes.data
