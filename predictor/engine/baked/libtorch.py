"""libtorch without Python: packages of compiled code, run through the C interface that PyTorch keeps stable.

Signatures: `torch/csrc/inductor/aoti_runtime/interface.h` (packages) and `torch/csrc/inductor/aoti_torch/c/shim.h`
(tensors) in torch's own include folder. A handle belongs to whoever holds it: `Package.run` gives its inputs' handles
away, and what it returns is freed with the `Tensor` that holds it. Every tensor here is contiguous, but for weights.
"""

import ctypes
import math
from collections.abc import Iterable, Mapping, Sequence
from ctypes import c_bool, c_char_p, c_int32, c_int64, c_size_t, c_void_p
from pathlib import Path
from typing import Any

from predictor.engine.baked.manifest import ITEM_SIZES, Dtype
from predictor.engine.baked.native import DeviceName, LibtorchError, folder, load_library, load_libtorch
from predictor.engine.baked.stderr import StderrTail

Input = tuple[int, Dtype, Sequence[int]]  # address, dtype, shape
OUT_OF_MEMORY = ("out of memory", "can't allocate memory")


class NoMemory(LibtorchError):
    """It failed for want of memory."""


class _Entry(ctypes.Structure):
    """AOTInductorConstantMapEntry."""

    _fields_ = (("name", c_char_p), ("handle", c_void_p))


# Arguments of every function that is called; all return an error code, 0 for success.
_PACKAGE_CALLS: Mapping[str, Sequence[Any]] = {
    "CreateWithDevice": (ctypes.POINTER(c_void_p), c_size_t, c_char_p, c_char_p),
    "Delete": (c_void_p,),
    "GetNumInputs": (c_void_p, ctypes.POINTER(c_size_t)),
    "GetNumOutputs": (c_void_p, ctypes.POINTER(c_size_t)),
    "GetNumConstants": (c_void_p, ctypes.POINTER(c_size_t)),
    "GetConstantName": (c_void_p, c_size_t, ctypes.POINTER(c_char_p)),
    "GetConstantOriginalFQN": (c_void_p, c_size_t, ctypes.POINTER(c_char_p)),
    "UpdateUserManagedConstantBufferPairs": (c_void_p, ctypes.POINTER(_Entry), c_size_t, c_bool, c_bool),
    # Unlike Run it records no event for other threads to look at, which a graph could not hold.
    "RunSingleThreaded": (
        *(c_void_p, ctypes.POINTER(c_void_p), c_size_t, ctypes.POINTER(c_void_p), c_size_t, c_void_p, c_void_p),
    ),
}
_TENSOR_CALLS: Mapping[str, Sequence[Any]] = {
    "create_tensor_from_blob": (
        *(c_void_p, c_int64, ctypes.POINTER(c_int64), ctypes.POINTER(c_int64), c_int64),
        *(c_int32, c_int32, c_int32, ctypes.POINTER(c_void_p)),
    ),
    "get_data_ptr": (c_void_p, ctypes.POINTER(c_void_p)),
    "delete_tensor_object": (c_void_p,),
}


class Libtorch:
    """The libraries, loaded for one device, and the tensors that they know.

    Loading takes tenths of a second and lets other threads run meanwhile.
    """

    def __init__(self, device: DeviceName, stderr: StderrTail, threads: int = 0) -> None:
        self.device, self._stderr = device, stderr
        load_libtorch(device, threads)
        calls = load_library(folder() / "libtorch_cpu.so", ctypes.RTLD_GLOBAL)
        self._calls = {name: _declare(calls, f"aoti_torch_{name}", kinds) for name, kinds in _TENSOR_CALLS.items()}
        self._dtypes: dict[Dtype, int] = {
            name: int(getattr(calls, f"aoti_torch_dtype_{name}")()) for name in ITEM_SIZES
        }
        self._device_type = int(getattr(calls, f"aoti_torch_device_type_{device}")())

    def wrap(self, address: int, dtype: Dtype, shape: Sequence[int], strides: Sequence[int] | None = None) -> int:
        """A handle for memory that stays the caller's. `strides` in elements; None is contiguous."""
        dims = len(shape)
        steps = contiguous(shape) if strides is None else strides
        handle = c_void_p()
        self.check(
            self._calls["create_tensor_from_blob"](
                address,
                dims,
                (c_int64 * dims)(*shape),
                (c_int64 * dims)(*steps),
                0,
                self._dtypes[dtype],
                self._device_type,
                0,
                ctypes.byref(handle),
            ),
            "create_tensor_from_blob",
        )
        assert handle.value is not None
        return handle.value

    def address(self, handle: int) -> int:
        """Where the tensor's first element is."""
        address = c_void_p()
        self.check(self._calls["get_data_ptr"](handle, ctypes.byref(address)), "get_data_ptr")
        return address.value or 0

    def release(self, handle: int) -> None:
        """Free a handle and, if it owns it, its memory."""
        self._calls["delete_tensor_object"](handle)

    def check(self, code: int, call: str) -> None:
        """Raise LibtorchError, or NoMemory, unless `code` is 0."""
        if code:
            reason = self._stderr.take() or f"{call} failed with code {code} and gave no reason"
            raise (NoMemory if any(sign in reason for sign in OUT_OF_MEMORY) else LibtorchError)(reason)


class Tensor:
    """An output: its memory lives as long as this object."""

    __slots__ = ("_handle", "_torch", "address")

    def __init__(self, torch: Libtorch, handle: int) -> None:
        self._torch, self._handle = torch, handle
        self.address = torch.address(handle)

    def __del__(self) -> None:
        self._torch.release(self._handle)


class Package:
    """One compiled program (AOTInductor's model container, with one model in it).

    One thread calls a package; those of several may run at once.

    Raises:
        LibtorchError: the library cannot be loaded, or is not what `inputs` and `outputs` say.
    """

    def __init__(self, torch: Libtorch, library: Path, inputs: int, outputs: int) -> None:
        self._torch, self._library, self._outputs = torch, library, outputs
        self._container = c_void_p()
        self._constants: list[int] = []  # handles
        # Two packages define the same names; local ones keep each from running the other's code.
        calls = load_library(library, ctypes.RTLD_LOCAL)
        prefix = "AOTInductorModelContainer"
        try:
            self._calls = {name: _declare(calls, prefix + name, kinds) for name, kinds in _PACKAGE_CALLS.items()}
        except AttributeError as error:
            raise LibtorchError(f"{library}: not a compiled package: {error}") from None
        # Kernels of a GPU lie beside the library.
        device, kernels = torch.device.encode(), str(library.parent).encode()
        self._call("CreateWithDevice", ctypes.byref(self._container), 1, device, kernels)
        for name, wanted in (("GetNumInputs", inputs), ("GetNumOutputs", outputs)):
            number = c_size_t()
            self._call(name, self._container, ctypes.byref(number))
            if number.value != wanted:
                raise LibtorchError(f"{library}: {name} says {number.value}; expected {wanted}")

    def constants(self) -> dict[str, str]:
        """The weights that it wants: its own name → the parameter's name in the module that was exported."""
        count, names = c_size_t(), {}
        self._call("GetNumConstants", self._container, ctypes.byref(count))
        for index in range(count.value):
            name, original = c_char_p(), c_char_p()
            self._call("GetConstantName", self._container, index, ctypes.byref(name))
            self._call("GetConstantOriginalFQN", self._container, index, ctypes.byref(original))
            names[(name.value or b"").decode()] = (original.value or b"").decode()
        return names

    def use(self, constants: Mapping[str, int]) -> None:
        """Take weights by its own names from tensors' handles, which become the package's; their memory does not."""
        assert not self._constants
        self._constants = list(constants.values())
        entries = (_Entry * len(constants))(*(_Entry(name.encode(), handle) for name, handle in constants.items()))
        self._call("UpdateUserManagedConstantBufferPairs", self._container, entries, len(entries), False, True)

    def run(self, inputs: Iterable[int], stream: int | None = None) -> list[Tensor]:
        """Give the inputs' handles away, get outputs. On a GPU it returns when the work is queued on `stream`."""
        given = list(inputs)
        results = (c_void_p * self._outputs)()
        handles = (c_void_p * len(given))(*given)
        self._call("RunSingleThreaded", self._container, handles, len(given), results, self._outputs, stream, None)
        return [Tensor(self._torch, handle) for handle in results if handle is not None]

    def close(self) -> None:
        """Free the program and its handles; nothing of it may be running."""
        if self._container.value is not None:
            self._call("Delete", self._container)
            self._container = c_void_p()
        while self._constants:
            self._torch.release(self._constants.pop())

    def _call(self, name: str, *arguments: Any) -> None:
        self._torch.check(self._calls[name](*arguments), f"{self._library.name}: {name}")


def contiguous(shape: Sequence[int]) -> tuple[int, ...]:
    """Strides, in elements, of a tensor in row-major order."""
    return tuple(math.prod(shape[place + 1 :]) for place in range(len(shape)))


def _declare(library: ctypes.CDLL, name: str, arguments: Sequence[Any]) -> Any:
    function = getattr(library, name)
    function.argtypes, function.restype = tuple(arguments), c_int32
    return function
