"""weights.bin and weights.json: each weight once, in the layout in which the packages read it."""

import hashlib
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Literal

import msgspec
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from predictor.engine import modules
from predictor.engine.baked.manifest import ALIGNMENT, ITEM_SIZES, TensorSpec, WeightIndex
from predictor.engine.folder import ModelFolder
from predictor.engine.weights import WeightReader
from predictor.lab.bake import preview
from predictor.lab.bake.cache import Constant, Entry
from predictor.lab.bake.plan import text_encoders

CHUNK = 16 * 2**20  # bytes with a checksum of their own

Told = Callable[[int, int], None]  # bytes written, bytes in all


def components(folder: ModelFolder, half: bool, taught: Path) -> dict[str, nn.Module]:
    """The model's modules on the CPU as its files have them, and the preview decoder from a safetensors file."""
    names = [*text_encoders(folder), "unet", "vae"]
    paths = {name: folder.weights(name, half) for name in names}
    reader = WeightReader([path for component in paths.values() for path in component])
    found: dict[str, nn.Module] = {
        name: modules.text_encoder(folder, name, reader, paths[name]) for name in text_encoders(folder)
    }
    found["unet"] = modules.unet(folder, reader, paths["unet"])
    found["vae"] = modules.vae(folder, reader, paths["vae"])
    found["preview"] = preview.PreviewDecoder(folder.config("unet").get("in_channels", 4))
    found["preview"].load_state_dict(load_file(taught), assign=True)
    return found


def preview_state(folder: ModelFolder, device: Literal["cpu", "cuda"], kept: Path) -> dict[str, Tensor]:
    """Weights of the preview decoder for this model: fitted to its VAE on `device`, or from an earlier bake.

    Raises:
        PreviewError: the VAE gives nothing to learn from.
    """
    own = hashlib.sha256(f"{folder.revision()} {device} {Path(preview.__file__).read_text(encoding='utf-8')}".encode())
    file = kept / f"preview-{own.hexdigest()[:32]}.safetensors"
    if not file.is_file():
        half = device == "cuda"
        upcast = len(text_encoders(folder)) == 2 and folder.config("vae").get("force_upcast")
        dtype = torch.float16 if half and not upcast else torch.float32
        vae = nn.Module.to(preview.load_teacher(folder, half), device, dtype)
        kept.mkdir(parents=True, exist_ok=True)
        made = file.with_name(f".{file.name}.{os.getpid()}")
        save_file(preview.fit_preview(vae, torch.device(device), seed=0).state_dict(), made)
        made.rename(file)
    state: dict[str, Tensor] = load_file(file)
    return state


def write(
    path: Path, entries: Mapping[str, Entry], sources: Mapping[str, nn.Module], told: Told
) -> tuple[WeightIndex, dict[str, dict[str, str]]]:
    """Write the weights that the packages want to `path`: its index, and each package's constants by tensor name.

    One tensor is in memory at a time, besides `sources`.
    """
    checkpoint = {
        f"{component}.{name}": tensor for component, module in sources.items() for name, tensor in _state(module)
    }
    wanted = {(name, constant) for entry in entries.values() for name, constant in entry.record.constants.items()}
    expected = sum(_bytes(constant) for _, constant in wanted)
    tensors: dict[str, dict[str, str]] = {}
    known: dict[tuple[str, Constant], str] = {}
    with WeightFile(path) as file:
        for package, entry in entries.items():
            own = load_file(entry.own)
            tensors[package] = {}
            for name, constant in entry.record.constants.items():
                place = (name, constant)
                # What a package brings along may differ from package to package under one name.
                if name in own or place not in known:
                    known[place] = file.add(name, arranged(own[name] if name in own else checkpoint[name], constant))
                tensors[package][name] = known[place]
                told(file.size, expected)
    return file.index(), tensors


def arranged(source: Tensor, constant: Constant) -> Tensor:
    """`source` in the dtype and layout that a package expects.

    Raises:
        ValueError: its shape is another.
    """
    if tuple(source.shape) != constant.shape:
        raise ValueError(f"got shape {list(source.shape)}; the package expects {list(constant.shape)}")
    made = torch.empty_strided(constant.shape, constant.strides, dtype=getattr(torch, constant.dtype))
    return made.copy_(source)


class WeightFile:
    """A growing weights.bin. Equal tensors are written once."""

    def __init__(self, path: Path) -> None:
        self._file: IO[bytes] = path.open("wb")
        self._tensors: dict[str, TensorSpec] = {}
        self._contents: dict[str, str] = {}  # hash of a tensor → its name
        self._sums: list[str] = []
        self._sum, self._left = hashlib.sha256(), CHUNK
        self.size = 0

    def __enter__(self) -> "WeightFile":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def add(self, name: str, tensor: Tensor) -> str:
        """Append a tensor without gaps; returns its name in the file, that of an equal one if there is one."""
        content = memoryview(tensor.as_strided((tensor.numel(),), (1,)).view(torch.uint8).numpy())  # type: ignore[arg-type]
        constant = _constant(tensor)
        digest = hashlib.sha256(msgspec.json.encode(constant))
        digest.update(content)
        if (same := self._contents.get(digest.hexdigest())) is not None:
            return same
        if name in self._tensors:
            name = f"{name}~{digest.hexdigest()[:12]}"
        self._write(bytes(-self.size % ALIGNMENT))
        spec = TensorSpec(constant.dtype, constant.shape, constant.strides, self.size)
        self._write(content)
        self._tensors[name] = spec
        self._contents[digest.hexdigest()] = name
        return name

    def index(self) -> WeightIndex:
        """What weights.json says; the file is complete."""
        last = [self._sum.hexdigest()] if self._left < CHUNK else []
        return WeightIndex(self.size, CHUNK, self._sums + last, self._tensors)

    def _write(self, data: bytes | memoryview) -> None:
        self._file.write(data)
        self.size += len(data)
        view = memoryview(data)
        while view:
            piece, view = view[: self._left], view[self._left :]
            self._sum.update(piece)
            self._left -= len(piece)
            if not self._left:
                self._sums.append(self._sum.hexdigest())
                self._sum, self._left = hashlib.sha256(), CHUNK


def _state(module: nn.Module) -> list[tuple[str, Tensor]]:
    return list(module.state_dict().items())


def _constant(tensor: Tensor) -> Constant:
    dtype: Any = str(tensor.dtype).removeprefix("torch.")
    return Constant(dtype, tuple(tensor.shape), tuple(tensor.stride()))


def _bytes(constant: Constant) -> int:
    return math.prod(constant.shape) * ITEM_SIZES[constant.dtype]
