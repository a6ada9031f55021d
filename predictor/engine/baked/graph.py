"""A CUDA graph of a package's call: hundreds of kernels, launched at once by a processor that is slower than the GPU.

A graph replays addresses. So inputs are copied to its own places, outputs are copied out of them, and nobody else may
ever get the memory in between: that takes torch's allocator, and therefore torch's own class. The stable C interface
has no graphs; `at::cuda::CUDAGraph` (ATen/cuda/CUDAGraph.h) is called by its C++ names, which the Itanium C++ ABI
fixes: `this` comes first, a pair of integers takes two registers. A bundle runs on the torch build that it was made
with and no other, so a name is either there or the bundle does without graphs.
"""

import ctypes
import math
from collections.abc import Callable, Mapping, Sequence
from ctypes import c_bool, c_int, c_int32, c_uint64, c_void_p
from typing import Any

from predictor.engine.baked.cuda import Cuda
from predictor.engine.baked.device import Device, Memory
from predictor.engine.baked.libtorch import Input, Libtorch, Package, Tensor
from predictor.engine.baked.manifest import ITEM_SIZES
from predictor.engine.baked.native import LibtorchError, folder

RELAXED = 2  # cudaStreamCaptureModeRelaxed: other threads go on as they like
CAPTURING = 1  # cudaStreamCaptureStatusActive
OBJECT_BYTES = 4096  # more than the class has ever had
CLASS = "_ZN2at4cuda9CUDAGraph"
_CALLS: Mapping[str, Sequence[Any]] = {
    "C1Eb": (c_void_p, c_bool),  # CUDAGraph(bool keep_graph)
    "13capture_beginESt4pairIyyE21cudaStreamCaptureMode": (c_void_p, c_uint64, c_uint64, c_int),
    "11capture_endEv": (c_void_p,),
    "6replayEv": (c_void_p,),
}


class Graph:
    """A call that always reads the same places and writes the same outputs; one thread uses it.

    Args:
        places: of the inputs, in their order.
        outputs: where each output is after `replay`.
        size: bytes of every output.
        replay: does the work, in the order of the calling thread's stream.
    """

    def __init__(
        self,
        device: Device,
        places: Sequence[Memory],
        outputs: Sequence[Tensor | Memory],
        size: int,
        replay: Callable[[], None],
    ) -> None:
        self._device, self._places, self._outputs, self._size, self._replay = device, places, outputs, size, replay
        self._spare: list[Memory] = []

    def run(self, inputs: Sequence[Input]) -> list[Memory]:
        """Outputs that are the caller's until the last reference is gone; then another call may get their memory."""
        for place, (address, _, _) in zip(self._places, inputs, strict=True):
            self._device.copy(place.address, address, place.size)
        self._replay()
        results = []
        for output in self._outputs:
            memory = self._spare.pop() if self._spare else self._device.allocate(self._size)
            self._device.copy(memory.address, output.address, self._size)
            results.append(Memory(memory.address, memory.size, _Loan(memory, self._spare)))
        return results


class _Loan:
    def __init__(self, memory: Memory, spare: list[Memory]) -> None:
        self._memory, self._spare = memory, spare

    def __del__(self) -> None:
        self._spare.append(self._memory)


def capture(device: Cuda, torch: Libtorch, package: Package, inputs: Sequence[Input], size: int) -> Graph:
    """The graph of a call with inputs like these, whose outputs have `size` bytes each.

    The package must have run before in the calling thread, which is the only one that may use the graph.

    Raises:
        LibtorchError: this build of torch has no such class, or the call cannot be captured.
    """
    native = _native()
    places = [device.allocate(math.prod(shape) * ITEM_SIZES[dtype]) for _, dtype, shape in inputs]
    for place in places:
        device.clear(place.address, place.size)
    handles = [torch.wrap(place.address, dtype, shape) for place, (_, dtype, shape) in zip(places, inputs, strict=True)]
    # torch captures and replays on the thread's current stream: from now on that is the device's own, for good.
    torch.check(native["guard"](device.stream, 0, ctypes.byref(c_void_p())), "create_cuda_stream_guard")
    graph = ctypes.create_string_buffer(OBJECT_BYTES)
    native["C1Eb"](graph, False)
    native["13capture_beginESt4pairIyyE21cudaStreamCaptureMode"](graph, 0, 0, RELAXED)
    try:
        outputs = package.run(handles, device.stream)
        if device.capturing() != CAPTURING:
            raise LibtorchError("the call did something that a CUDA graph cannot hold")
    except LibtorchError:
        device.end_capture()  # torch's own end would end the process, for it throws
        raise
    native["11capture_endEv"](graph)
    native["6replayEv"](graph)  # the first time takes it to the device
    return Graph(device, places, outputs, size, lambda: native["6replayEv"](graph))


def _native() -> dict[str, Any]:
    library = ctypes.CDLL(str(folder() / "libtorch_cuda.so"))
    functions = {}
    for name, arguments in _CALLS.items():
        try:
            function = getattr(library, CLASS + name)
        except AttributeError:
            raise LibtorchError(f"this build of torch has no {CLASS}{name}") from None
        function.argtypes, function.restype = tuple(arguments), None
        functions[name] = function
    functions["guard"] = library.aoti_torch_create_cuda_stream_guard
    functions["guard"].argtypes = (c_void_p, c_int32, ctypes.POINTER(c_void_p))
    return functions
