"""The machine at hand, as far as compiled code depends on it; found out in milliseconds, without importing torch."""

import ctypes
import importlib.util
import os
import re
from ctypes import c_char_p, c_int
from pathlib import Path
from typing import Literal

import msgspec

from predictor.engine.baked.bundle import BundleError
from predictor.engine.baked.manifest import Machine

# What a compiler that is told to use this CPU may put into ordinary arithmetic, as /proc/cpuinfo calls it. Instructions
# that only a programmer asks for (cryptography, virtual machines, …) are of no account.
COMPILER_FLAGS = """
pni ssse3 sse4_1 sse4_2 sse4a popcnt movbe abm lzcnt bmi1 bmi2 tbm f16c fma fma4 xop avx avx2 avx_vnni avx_ifma
avx_vnni_int8 avx_ne_convert gfni avx512f avx512bw avx512cd avx512dq avx512vl avx512ifma avx512vbmi avx512_vbmi2
avx512_vnni avx512_bitalg avx512_vpopcntdq avx512_bf16 avx512_fp16 amx_tile amx_int8 amx_bf16 amx_fp16
asimd asimdhp asimddp asimdfhm asimdrdm fphp atomics lrcpc bf16 i8mm sve sve2 svebf16 svei8mm
"""
CAPABILITY_MAJOR, CAPABILITY_MINOR = 75, 76  # CUdevice_attribute


class MachineError(BundleError):
    """This machine lacks what any bundle for the device needs; the message says what."""


def describe(device: Literal["cpu", "cuda"]) -> Machine:
    """This machine, its first GPU included for `cuda`; what only a bake knows, the compilers, is left empty.

    For `cuda` it initialises the driver (cuInit, which the process needs anyway) and makes no context.

    Raises:
        MachineError: torch is not installed; or there is no GPU, or no driver.
    """
    torch, cuda = _torch()
    gpu, capability = _gpu() if device == "cuda" else (None, None)
    return Machine(
        device=device,
        gpu=gpu,
        capability=capability,
        torch=torch,
        cuda=cuda,
        compiler="",
        triton=None,
        cpu_flags=_cpu_flags(),
        arch=os.uname().machine,
    )


def with_compilers(machine: Machine) -> Machine:
    """The same with the versions of the compilers that a bake uses: `g++`, and Triton where it is installed."""
    import subprocess  # slow to import, both, and serving never asks
    from importlib.metadata import PackageNotFoundError, version

    try:
        triton = version("triton")
    except PackageNotFoundError:
        triton = None
    try:
        said = subprocess.run(["g++", "-dumpfullversion"], capture_output=True, text=True, check=True)  # noqa: S607
    except (OSError, subprocess.CalledProcessError) as error:
        raise MachineError(f"g++: {error}; a bake compiles with it: install it") from None
    return msgspec.structs.replace(machine, compiler=f"g++ {said.stdout.strip()}", triton=triton)


def _torch() -> tuple[str, str | None]:
    """The installed torch's version, and that of the CUDA it was built with; read, not executed."""
    found = importlib.util.find_spec("torch")
    if found is None or found.origin is None:
        raise MachineError("torch is not installed; a bundle runs on its libraries (not on its Python modules)")
    file = Path(found.origin).with_name("version.py")
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise MachineError(f"{file}: {error}; install torch again") from None
    version = re.search(r"^__version__(?:: \w+)? = ['\"]([^'\"]+)['\"]", text, re.MULTILINE)
    cuda = re.search(r"^cuda(?:: [\w\[\]]+)? = ['\"]([^'\"]+)['\"]", text, re.MULTILINE)
    if version is None:
        raise MachineError(f"{file}: it does not say which version it is; install torch again")
    return version[1], cuda[1] if cuda else None


def _gpu() -> tuple[str, str]:
    """Name and compute capability of the first GPU that this process may use (CUDA Driver API reference)."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        raise MachineError(f"no NVIDIA driver ({error}): a bundle for cuda needs a GPU and its driver") from None

    def call(name: str, *arguments: object) -> None:
        if code := getattr(driver, name)(*arguments):
            text = c_char_p()
            driver.cuGetErrorString(code, ctypes.byref(text))
            reason = text.value.decode() if text.value else "unknown error"
            raise MachineError(f"no GPU that can be used ({name}: {reason}, {code}): a bundle for cuda needs one")

    gpu, major, minor, name = c_int(), c_int(), c_int(), ctypes.create_string_buffer(256)
    call("cuInit", 0)
    call("cuDeviceGet", ctypes.byref(gpu), 0)
    call("cuDeviceGetName", name, len(name), gpu)
    call("cuDeviceGetAttribute", ctypes.byref(major), CAPABILITY_MAJOR, gpu)
    call("cuDeviceGetAttribute", ctypes.byref(minor), CAPABILITY_MINOR, gpu)
    return name.value.decode(), f"{major.value}.{minor.value}"


def _cpu_flags() -> tuple[str, ...]:
    """Of the first core: the kernel describes one when it is read, and there may be hundreds."""
    with Path("/proc/cpuinfo").open(encoding="utf-8", errors="replace") as file:
        for line in file:
            key, _, flags = line.partition(":")
            if key.strip() in ("flags", "Features"):
                return tuple(sorted({*COMPILER_FLAGS.split()} & {*flags.split()}))
    return ()
