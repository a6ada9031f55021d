"""diffusers' modules, built empty and filled from memory that is already read.

`from_pretrained` first draws random weights and then reads the files one tensor at a time; here the reading began
before torch was imported, and a module's parameters simply become views of that memory.
"""

import contextlib
import importlib
import logging
import math
import re
import sys
import types
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from predictor.engine.clip import TextEncoder
from predictor.engine.folder import ModelFolder
from predictor.engine.weights import WeightError, WeightReader
from predictor.lazily import stand_ins

log = logging.getLogger(__name__)

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
# Attention of VAEs that were saved before diffusers renamed its layers (2023); Stable Diffusion 1.5's own is one.
RENAMED = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
OLD_ATTENTION = re.compile(r"(.*attentions\.\d+)\.(query|key|value|proj_attn)\.(weight|bias)")


def build(
    make: Callable[[], nn.Module], paths: list[Path], reader: WeightReader, skip: tuple[str, ...] = ()
) -> nn.Module:
    """The module that `make` constructs, in eval mode, its parameters taken from `paths`.

    `skip` names top-level children that text-to-image never runs; they are dropped before the weights are matched.

    Raises:
        WeightError: a tensor is missing, left over, or of another shape than the configuration says.
    """
    with _no_initialisation():
        module = make()
    for child in skip:
        delattr(module, child)
    state: dict[str, torch.Tensor] = {}
    for path in paths:
        state.update(_tensors(path, reader))
    wanted = module.state_dict()
    state = {_known(name, wanted): tensor for name, tensor in state.items()}
    unexpected = [name for name in state.keys() - wanted.keys() if name.split(".")[0] not in skip]
    # Older files hold CLIP's position ids, which are computed now.
    unexpected = [name for name in unexpected if not name.endswith("position_ids")]
    names = ", ".join(path.name for path in paths)
    if unexpected or wanted.keys() - state.keys():
        missing = sorted(wanted.keys() - state.keys())
        raise WeightError(
            f"{paths[0].parent / names}: does not match config.json: {len(missing)} tensors are missing "
            f"(first: {missing[:1]}), {len(unexpected)} unknown (first: {sorted(unexpected)[:1]})"
        )
    for name, expected in wanted.items():
        # A 1x1 convolution and a linear layer hold the same numbers; old VAEs stored the former.
        if _longer_sides(state[name]) == _longer_sides(expected):
            state[name] = state[name].reshape(expected.shape)
        if state[name].shape != expected.shape:
            raise WeightError(
                f"{paths[0].parent / names}: tensor {name} has shape {list(state[name].shape)}; "
                f"config.json asks for {list(expected.shape)}"
            )
    module.load_state_dict({name: state[name] for name in wanted}, assign=True)
    return module.eval().requires_grad_(False)


def unet(folder: ModelFolder, reader: WeightReader, paths: list[Path]) -> nn.Module:
    """UNet2DConditionModel."""
    kind = _diffusers_class("models.unets.unet_2d_condition", "UNet2DConditionModel")
    return build(lambda: kind.from_config(folder.config("unet")), paths, reader)


def vae(folder: ModelFolder, reader: WeightReader, paths: list[Path]) -> nn.Module:
    """AutoencoderKL without its encoder."""
    kind = _diffusers_class("models.autoencoders.autoencoder_kl", "AutoencoderKL")
    return build(lambda: kind.from_config(folder.config("vae")), paths, reader, skip=("encoder", "quant_conv"))


def text_encoder(folder: ModelFolder, component: str, reader: WeightReader, paths: list[Path]) -> TextEncoder:
    """CLIP's text encoder, with a projection where the folder says so."""
    projection = str(folder.index[component][1]).endswith("Projection")
    module = build(lambda: TextEncoder(folder.config(component), projection), paths, reader)
    assert isinstance(module, TextEncoder)
    return module


def _tensors(path: Path, reader: WeightReader) -> Iterator[tuple[str, torch.Tensor]]:
    buffer, entries = reader.wait(path)
    for name, entry in entries.items():
        dtype = DTYPES[entry.dtype]
        count = math.prod(entry.shape)
        if count:
            yield name, torch.frombuffer(buffer, dtype=dtype, count=count, offset=entry.start).reshape(entry.shape)
        else:
            yield name, torch.empty(entry.shape, dtype=dtype)


def _longer_sides(tensor: torch.Tensor) -> list[int]:
    return [side for side in tensor.shape if side != 1]


def _known(name: str, wanted: dict[str, Any]) -> str:
    """`name` as the module of the installed library calls it."""
    for candidate in (name, name.removeprefix("text_model."), f"text_model.{name}"):
        if candidate in wanted:
            return candidate
    if old := OLD_ATTENTION.fullmatch(name):
        return f"{old[1]}.{RENAMED[old[2]]}.{old[3]}"
    return name


def _diffusers_class(module: str, name: str) -> Any:
    """A class of diffusers, imported the quick way, or the ordinary one where something installed beside insists."""
    try:
        with _only_what_runs():
            return getattr(importlib.import_module(f"diffusers.{module}"), name)
    except (ImportError, RuntimeError) as error:  # diffusers' own lazy imports turn the one into the other
        log.warning("diffusers needs transformers or torch's compiler here, and starts slower: %s", error)
    for half_imported in [loaded for loaded in sys.modules if loaded.partition(".")[0] == "diffusers"]:
        del sys.modules[half_imported]
    return getattr(importlib.import_module(f"diffusers.{module}"), name)


def _only_what_runs() -> AbstractContextManager[None]:
    """Import diffusers' models without transformers and torch's compiler: two thirds of their import time.

    A UNet and a VAE call neither, nor PEFT, which would import transformers. diffusers asks of these two whether they
    are installed, and of the compiler it wants two decorators that do nothing unless a model is compiled. Whoever does
    call them later imports the real ones.
    """

    def unchanged(function: Any = None, *_: Any, **__: Any) -> Any:
        return function if function is not None else unchanged

    compiler = types.ModuleType("torch._dynamo")
    vars(compiler).update(allow_in_graph=unchanged, disable=unchanged)
    return stand_ins({"transformers": None, "peft": None, "torch._dynamo": compiler})


@contextlib.contextmanager
def _no_initialisation() -> Iterator[None]:
    """Constructors allocate but draw no random numbers: seconds for a model of a billion parameters."""
    names = [name for name in vars(nn.init) if name.endswith("_") and not name.startswith("_")]
    kept = {name: getattr(nn.init, name) for name in names}
    try:
        for name in names:
            setattr(nn.init, name, lambda tensor, *_, **__: tensor)
        yield
    finally:
        for name, function in kept.items():
            setattr(nn.init, name, function)
