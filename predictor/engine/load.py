"""A model folder → something that makes pictures, and what it can do.

Reading starts before torch is imported, and the heavy imports are inside functions: their order is the cold start.
"""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import msgspec

from predictor.clock import now
from predictor.core.messages import Generate
from predictor.core.problems import Problem
from predictor.core.request import Capabilities
from predictor.engine.baked.bundle import Bundle, BundleError
from predictor.engine.baked.native import LibtorchError
from predictor.engine.baked.prelude import Prelude, contradictions
from predictor.engine.capabilities import of_bundle, of_folder, of_pipeline
from predictor.engine.denoiser import Denoiser, Event
from predictor.engine.folder import FolderError, ModelFolder
from predictor.engine.preview import LatentRGB
from predictor.engine.samplers import NoiseSchedule
from predictor.engine.tokens import Tokenizer
from predictor.engine.weights import WeightReader
from predictor.settings import EngineSettings

log = logging.getLogger(__name__)

MarkPhase = Callable[[str, str, float | None], None]


class Worker(Protocol):
    """What the engine's loop drives: the denoiser, or any other pipeline."""

    @property
    def busy(self) -> bool:
        """Whether `advance` has anything to do."""
        ...

    def add(self, message: Generate) -> list[Event]:
        """Take a request in, or say at once why not."""
        ...

    def end(self, id: str, problem: Problem) -> list[Event]:
        """Take a request out before its time."""
        ...

    def advance(self) -> list[Event]:
        """Do one step of work."""
        ...


def load(settings: EngineSettings, mark: MarkPhase, prelude: Prelude | None = None) -> tuple[Worker, Capabilities]:
    """The model of `settings`, warm, on its device; `prelude` is at work on its bundle, if it has one.

    `mark(name, since, at)` records the end of a phase.

    Raises:
        FolderError, WeightError, BundleError, LibtorchError: naming the file.
    """
    if prelude is not None:
        from predictor.engine.baked.load import load_bundle

        try:
            return load_bundle(prelude, settings, mark)
        except (BundleError, LibtorchError) as error:
            if settings.unfit_bundle == "refuse":
                raise
            log.warning("%s; running %s without it", error, settings.model)
    folder = ModelFolder.open(Path(settings.model))
    cuda, half = _wanted(settings)
    if not_steppable(folder):
        return _any_pipeline(folder, settings, cuda, half, mark)
    return _denoiser(folder, settings, cuda, half, mark)


def foreseen(settings: EngineSettings) -> Capabilities:
    """What `load` would say that the model of `settings` can do, of its bundle if it has one, without its weights.

    Only `max_pixels` may be less where the device's memory is small. Nothing is asked of the device, which may be
    another machine's. torch is imported for pipelines that are neither Stable Diffusion nor SDXL.

    Raises:
        FolderError, BundleError: naming the file.
    """
    if settings.bundle:
        bundle = Bundle.open(Path(settings.bundle))
        if reasons := contradictions(settings, bundle.manifest):
            raise BundleError(f"{settings.bundle}: {'; '.join(reasons)}")
        folder = ModelFolder.open(bundle.path / "model")
        return of_bundle(bundle.manifest, folder, settings, _tokenizers(folder))
    folder = ModelFolder.open(Path(settings.model))
    cuda, half = _wanted(settings)
    for name in folder.models():
        folder.weights(name, half)  # a folder that cannot be loaded can do nothing
    device, dtype = "cuda" if cuda else "cpu", _dtype(half)
    if not not_steppable(folder):
        return of_folder(folder, settings, _tokenizers(folder), device, dtype)
    from predictor.engine.anypipe import accepts, native_side, opened, weightless

    pipe = opened(folder, **weightless(folder))
    return of_pipeline(folder, settings, accepts(pipe), native_side(pipe), device, dtype)


def not_steppable(folder: ModelFolder) -> str | None:
    """Why the step-level engine cannot run this model; None if it can."""
    if folder.architecture not in ("StableDiffusionPipeline", "StableDiffusionXLPipeline"):
        return f"its architecture is {folder.architecture}"
    unet = folder.config("unet")
    for key, allowed in {
        "in_channels": (4,),
        "addition_embed_type": (None, "text_time"),
        "class_embed_type": (None,),
        "encoder_hid_dim_type": (None,),
        "time_cond_proj_dim": (None,),
    }.items():
        if unet.get(key, allowed[0]) not in allowed:
            return f"unet.{key} is {unet[key]}"
    try:
        NoiseSchedule.from_config(folder.config("scheduler"))
    except ValueError as error:
        return str(error)
    return None


def _denoiser(
    folder: ModelFolder, settings: EngineSettings, cuda: bool, half: bool, mark: MarkPhase
) -> tuple[Denoiser, Capabilities]:
    encoders = [name for name in ("text_encoder", "text_encoder_2") if name in folder.components]
    paths = {name: folder.weights(name, half) for name in (*encoders, "unet", "vae")}
    reader = WeightReader([path for component in paths.values() for path in component])
    tokenizers = _tokenizers(folder)

    import torch

    mark("torch", "interpreter", None)
    from predictor.engine import modules
    from predictor.engine.eager import EagerRuntime
    from predictor.engine.groupnorm import use_channels_last_group_norm
    from predictor.engine.resources import cores

    device = _device(torch, settings, cuda)
    dtype = torch.float16 if half else torch.float32
    torch.set_num_threads(settings.threads or cores())
    if cuda:
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.zeros(1, device=device)
        mark("cuda_context", "torch", None)
    texts = [modules.text_encoder(folder, name, reader, paths[name]) for name in encoders]
    unet = modules.unet(folder, reader, paths["unet"])
    vae = modules.vae(folder, reader, paths["vae"])
    mark("weights_read", "interpreter", reader.finished)
    mark("modules_built", "cuda_context" if cuda else "torch", None)

    # SDXL's decoder overflows in half precision, and its folder says so; in folders of older models it is a default.
    upcast = len(encoders) == 2 and folder.config("vae").get("force_upcast")
    vae_dtype = torch.float32 if upcast and half and cuda else dtype
    # Not `module.to`: diffusers overrides it to warn about a cast that is meant.
    move: Any = torch.nn.Module.to
    runtime = EagerRuntime(
        move(unet, device, dtype, memory_format=torch.channels_last),
        move(vae, device, vae_dtype, memory_format=torch.channels_last),
        [move(text, device, dtype) for text in texts],
        device,
        settings.cuda_graphs,
    )
    if cuda:
        use_channels_last_group_norm(unet)
        use_channels_last_group_norm(vae)
        torch.cuda.synchronize()
    mark("weights_on_device", "modules_built", None)

    found = of_folder(folder, settings, tokenizers, device.type, _dtype(half))
    denoiser = Denoiser(
        runtime,
        tokenizers,
        NoiseSchedule.from_config(folder.config("scheduler")),
        LatentRGB.load(folder.path, sdxl=len(encoders) == 2),
        channels=runtime.channels,
        scale=runtime.scale,
        zero_empty_prompt=bool(folder.index.get("force_zeros_for_empty_prompt")),
        max_rows=settings.max_rows,
        now=now,
    )
    blank = tuple(tokenizer.encode("").ids for tokenizer in tokenizers)
    runtime.warm(found.default_height, found.default_width, blank)
    mark("warm", "weights_on_device", None)
    return denoiser, msgspec.structs.replace(found, max_pixels=min(found.max_pixels, runtime.max_pixels()))


def _any_pipeline(
    folder: ModelFolder, settings: EngineSettings, cuda: bool, half: bool, mark: MarkPhase
) -> tuple[Worker, Capabilities]:
    for name in folder.models():
        folder.weights(name, half)  # refuses pickles by name before anything is opened

    import torch

    from predictor.engine.anypipe import AnyPipe, accepts, native_side, opened

    mark("torch", "interpreter", None)
    device = _device(torch, settings, cuda)
    pipe = opened(folder, dtype=torch.float16 if half else torch.float32).to(device)
    pipe.set_progress_bar_config(disable=True)
    mark("weights_on_device", "torch", None)
    found = of_pipeline(folder, settings, accepts(pipe), native_side(pipe), device.type, _dtype(half))
    return AnyPipe(pipe, now), found


def _wanted(settings: EngineSettings) -> tuple[bool, bool]:
    """Whether a folder's model runs on a GPU, and whether in half precision."""
    cuda = settings.device == "cuda" or (settings.device == "auto" and Path("/dev/nvidiactl").exists())
    return cuda, cuda if settings.dtype == "auto" else settings.dtype == "float16"


def _tokenizers(folder: ModelFolder) -> list[Tokenizer]:
    encoders = [name for name in ("text_encoder", "text_encoder_2") if name in folder.components]
    return [Tokenizer.load(folder.path / name.replace("text_encoder", "tokenizer")) for name in encoders]


def _dtype(half: bool) -> str:
    return "float16" if half else "float32"


def _device(torch: Any, settings: EngineSettings, cuda: bool) -> Any:
    if cuda and not torch.cuda.is_available():
        raise FolderError(
            f"--device {settings.device}: torch {torch.__version__} finds no usable NVIDIA GPU; "
            "check the driver and the pod's nvidia.com/gpu resource, or set --device cpu"
        )
    return torch.device("cuda" if cuda else "cpu")
