"""What inductor is asked for on each device, and the environment that its compilers see."""

import os
from collections.abc import Mapping
from types import MappingProxyType

# A compiler that links libstdc++ statically, as some images name here, makes packages that crash where they are loaded.
FOREIGN_COMPILERS = ("CXX", "CC", "CUDAHOSTCXX")
PREFIXES = ("TORCHINDUCTOR_", "AOT_INDUCTOR_", "AOTINDUCTOR_", "TRITON_")  # settings of the compilers themselves

_ALWAYS = {
    # Weights are in a file of their own, and none may become part of the code, be it as short as a bias of four.
    "aot_inductor.package_constants_in_so": False,
    "always_keep_tensor_constants": True,
}
INDUCTOR: Mapping[str, Mapping[str, object]] = MappingProxyType(
    {
        # The number of threads is that of the process that serves; loops are split as if there were four.
        "cpu": MappingProxyType(_ALWAYS | {"cpp.dynamic_threads": True, "cpp.threads": 4}),
        # Hundreds of kernels are opened faster within the library than as a file each.
        "cuda": MappingProxyType(_ALWAYS | {"aot_inductor.embed_kernel_binary": True}),
    }
)
AUTOTUNE: Mapping[str, object] = MappingProxyType({"max_autotune": True, "coordinate_descent_tuning": True})


def options(device: str, autotune: bool) -> dict[str, object]:
    """Inductor's configuration for one package."""
    return {**INDUCTOR[device], **(AUTOTUNE if autotune else {})}


def from_outside(environ: Mapping[str, str]) -> list[tuple[str, str]]:
    """Settings of the compilers that somebody put into the environment: they change the code as options do."""
    return sorted((name, value) for name, value in environ.items() if name.startswith(PREFIXES))


def compilers_environment(environ: Mapping[str, str], cache: str) -> dict[str, str]:
    """The environment of one compilation: `environ` without other compilers, inductor's own cache in `cache`."""
    kept = {name: value for name, value in environ.items() if name not in FOREIGN_COMPILERS}
    return kept | {
        "TORCHINDUCTOR_CACHE_DIR": cache,
        "AOT_INDUCTOR_ENABLE_LINE_TABLES": "0",  # for debuggers; three quarters of a small library
    }


def foreign_compilers() -> list[str]:
    """The variables that `compilers_environment` leaves out here."""
    return [name for name in FOREIGN_COMPILERS if name in os.environ]
