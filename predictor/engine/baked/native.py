"""Native libraries and CUDA's context: where they are, how they are opened, and a head start for both.

Opening takes half a second and needs a path alone, so it begins before Python has imported what the rest needs. The
linker opens one library at a time: whatever comes to it meanwhile waits, Python's own extension modules among them.
"""

import contextlib
import ctypes
import functools
import hashlib  # noqa: F401 (of what comes next; its library would otherwise wait until torch's are open)
import importlib.util
import json
import mmap  # noqa: F401 (as above)
import os
import queue  # noqa: F401 (as above)
import threading
from collections.abc import Callable
from ctypes import c_char_p, c_int, c_void_p
from pathlib import Path
from typing import Any, Literal

from predictor.engine.resources import cores

DeviceName = Literal["cpu", "cuda"]
RTLD_NOW = 2  # dlfcn.h
# libtorch.so itself holds nothing, but asks for the CUDA libraries wherever torch was built with them.
LIBRARIES = {
    "cpu": ("libtorch_global_deps.so", "libtorch_cpu.so"),
    "cuda": ("libtorch_global_deps.so", "libtorch_cpu.so", "libtorch_cuda.so", "libtorch.so"),
}
# What a convolution needs of cuDNN 9, by name and in this order.
CUDNN = ("graph", "engines_precompiled", "heuristic", "engines_runtime_compiled")


class LibtorchError(RuntimeError):
    """A call into native code failed; the message is the library's own."""


def head_start(bundle: str, threads: int) -> None:
    """Begin to open what the bundle's device needs, in threads; returns at once.

    Nothing is told from here: whoever needs a library opens it again, which waits for this, or finds what is wrong.
    """
    try:
        device = json.loads((Path(bundle) / "manifest.json").read_bytes())["machine"]["device"]
    except (OSError, ValueError, LookupError, TypeError):
        return
    works: list[tuple[Callable[[], None], ...]] = [(functools.partial(load_libtorch, device, threads),)]
    if device == "cuda":
        works = [(begin_context,), (*works[0], load_cudnn)]
    for work in works:
        threading.Thread(target=_quietly, args=work, name="head-start", daemon=True).start()


def _quietly(*works: Callable[[], None]) -> None:
    with contextlib.suppress(LibtorchError, OSError, LookupError):
        for work in works:
            work()


def folder() -> Path:
    """Where torch's libraries are; torch is looked for, not imported. Raises LibtorchError if it is not installed."""
    found = importlib.util.find_spec("torch")
    if found is None or found.origin is None:
        raise LibtorchError("torch is not installed; a bundle needs its libraries (not its Python modules)")
    return Path(found.origin).parent / "lib"


def load_libtorch(device: DeviceName, threads: int) -> None:
    """Open torch's libraries for a device whose CPU work takes `threads` threads, or one per core with 0.

    Raises:
        LibtorchError: the linker's own message.
    """
    # Read when libgomp is loaded, which is with libtorch. Threads that wait by spinning slow each other down many
    # times over on cores that they share with anything else.
    os.environ["OMP_NUM_THREADS"] = str(threads or cores())
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    for name in LIBRARIES[device]:
        load_library(folder() / name, ctypes.RTLD_GLOBAL)


def load_cudnn() -> None:
    """Open the parts of cuDNN that it opens itself when it is first used, which is on the way to the first image."""
    main = Path(loaded("libcudnn.so"))
    for part in CUDNN:
        load_library(main.with_name(main.name.replace("libcudnn", f"libcudnn_{part}")), ctypes.RTLD_LOCAL)


def loaded(name: str) -> str:
    """The path of a library that this process has loaded. Raises LibtorchError if it has none of this name."""
    for line in Path("/proc/self/maps").read_text(encoding="utf-8").splitlines():
        path = line.split(maxsplit=5)[-1]
        if Path(path).name.startswith(name):
            return path
    raise LibtorchError(f"{name} is not among torch's libraries: this torch was built without CUDA")


def load_library(path: Path, scope: int) -> ctypes.CDLL:
    """dlopen(3) without holding Python's lock: `ctypes.CDLL` by itself keeps every other thread waiting."""
    dlopen, dlerror = _loader()
    handle = dlopen(bytes(path), scope | RTLD_NOW)
    if not handle:
        # The reason belongs to the thread that called, which is this one.
        raise LibtorchError((dlerror() or b"").decode(errors="replace") or f"{path}: cannot be loaded")
    return ctypes.CDLL(str(path), handle=handle)


def begin_context() -> None:
    """Make the first GPU's context through the driver; CUDA's runtime, once it is loaded, will use it.

    It takes as long as loading libtorch, and needs nothing of it (CUDA Driver API reference, primary context).
    """
    driver, device, context = ctypes.CDLL("libcuda.so.1"), c_int(), c_void_p()
    for name, arguments in (
        ("cuInit", (0,)),
        ("cuDeviceGet", (ctypes.byref(device), 0)),
        ("cuDevicePrimaryCtxRetain", (ctypes.byref(context), device)),
    ):
        if code := getattr(driver, name)(*arguments):
            raise LibtorchError(f"{name} failed with code {code}")


@functools.cache
def _loader() -> tuple[Any, Any]:
    libc = ctypes.CDLL(None)
    libc.dlopen.argtypes, libc.dlopen.restype = (c_char_p, c_int), c_void_p
    libc.dlerror.restype = c_char_p
    return libc.dlopen, libc.dlerror
