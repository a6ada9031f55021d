"""One package: export the part, compile it with AOTInductor, keep what serving needs. Runs as a process of its own.

    python -m predictor.lab.bake.compile JOB.json FOLDER

The weights are random: what is compiled fits every checkpoint of the architecture. A line that begins with `STAGE`
says what is being done; all others are the log.
"""

import sys
import zipfile
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from predictor.lab.bake import parts
from predictor.lab.bake.cache import Constant, Record, sha256
from predictor.lab.bake.children import STAGE
from predictor.lab.bake.elf import drop_dependency
from predictor.lab.bake.inductor import options
from predictor.lab.bake.plan import Job

# Of a package's files, what was needed to make it.
SOURCES = (".cpp", ".h", ".hpp", ".o", ".json", ".txt")


def main(argv: list[str]) -> int:
    """Compile the job of a file into a folder, which becomes an entry of the cache."""
    job = msgspec.json.decode(Path(argv[0]).read_bytes(), type=Job)
    folder = Path(argv[1])
    torch.backends.cuda.matmul.allow_tf32 = False
    with torch.no_grad(), attention(job):
        _stage("exporting")
        part = parts.blank(job)
        inputs, varying = parts.export_example(job)
        program = torch.export.export(part, inputs, dynamic_shapes=varying, strict=False)
        _stage("compiling")
        package = folder / "package.pt2"
        torch._inductor.aoti_compile_and_package(
            program, package_path=str(package), inductor_configs=options(job.device, job.autotune)
        )
    code = folder / "code"
    code.mkdir()
    library = unpack(package, code)
    package.unlink()
    # libtorch.so holds no code, but asks for gigabytes of CUDA libraries wherever torch was built with them.
    if job.device == "cpu":
        drop_dependency(library, "libtorch.so")
    tensors: dict[str, Tensor] = {**program.state_dict, **program.constants}
    wanted = constants_of(library, job.device, tensors)
    checkpoint = part.state_dict()
    save_file({n: tensors[n].contiguous().cpu() for n in wanted if n not in checkpoint}, folder / "own.safetensors")
    files = {file.name: sha256(file) for file in sorted(code.iterdir())}
    record = Record(library.name, files, wanted)
    (folder / "package.json").write_bytes(msgspec.json.encode(record))
    return 0


def attention(job: Job) -> AbstractContextManager[None]:
    """Which kernels attention is exported with.

    cuDNN's are the fastest for a full batch, but compiled when a shape is first met: a third of a second of a start.
    What the first picture waits for takes kernels that torch's library holds ready.
    """
    if job.device == "cpu" or job.images != (1, 1):
        return nullcontext()
    kernels: AbstractContextManager[None] = sdpa_kernel(
        [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
    )
    return kernels


def unpack(package: Path, code: Path) -> Path:
    """Take the compiled files out of a .pt2; returns the model's library.

    Raises:
        ValueError: there is not exactly one that could be it.
    """
    with zipfile.ZipFile(package) as archive:
        for member in archive.infolist():
            path = PurePosixPath(member.filename)
            if "aotinductor" in path.parts and not member.is_dir() and path.suffix not in SOURCES:
                (code / path.name).write_bytes(archive.read(member))
    libraries = sorted(code.glob("*.so"))
    models = [library for library in libraries if library.name.endswith(".wrapper.so")] or libraries
    if len(models) != 1:
        raise ValueError(f"{package}: got the libraries {[library.name for library in libraries]}; expected one model")
    return models[0]


def load(library: Path, device: str) -> Any:
    """A compiled library in torch's own runner."""
    runners = torch._C._aoti
    if device == "cuda":
        return runners.AOTIModelContainerRunnerCuda(str(library), 1, "cuda", str(library.parent))
    return runners.AOTIModelContainerRunnerCpu(str(library), 1)


def constants_of(library: Path, device: str, tensors: Mapping[str, Tensor]) -> dict[str, Constant]:
    """What the compiled library wants, as the exported program's `tensors` say it is, in their order.

    Raises:
        ValueError: it wants something that the program does not have, or that has gaps or is elsewhere.
    """
    names = set(load(library, device).get_constant_names_to_original_fqns().values())
    if unknown := sorted(names - tensors.keys()):
        raise ValueError(f"the compiled package wants constants that the exported program lacks: {unknown[:3]}")
    found = {}
    for name, tensor in tensors.items():
        if name in names:
            # The runtime puts all of them on its device.
            if tensor.device.type != device:
                raise ValueError(f"constant {name} is on {tensor.device}; the package is for {device}")
            if 1 + sum((n - 1) * step for n, step in zip(tensor.shape, tensor.stride(), strict=True)) != tensor.numel():
                raise ValueError(f"constant {name}: shape {list(tensor.shape)}, strides {tensor.stride()}: has gaps")
            dtype: Any = str(tensor.dtype).removeprefix("torch.")
            found[name] = Constant(dtype, tuple(tensor.shape), tuple(tensor.stride()))
    return found


def _stage(word: str) -> None:
    print(STAGE + word, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
