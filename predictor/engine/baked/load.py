"""A bundle → a denoiser: what remains to be put together when the prelude is over."""

from collections.abc import Callable
from pathlib import Path

from predictor.clock import now
from predictor.core.request import Capabilities
from predictor.engine.baked.prelude import Prelude
from predictor.engine.baked.runtime import BakedRuntime
from predictor.engine.capabilities import of_bundle
from predictor.engine.denoiser import Denoiser
from predictor.engine.folder import FolderError, ModelFolder
from predictor.engine.preview import LatentRGB
from predictor.engine.samplers import NoiseSchedule
from predictor.engine.tokens import Tokenizer
from predictor.settings import EngineSettings


def load_bundle(
    prelude: Prelude, settings: EngineSettings, mark: Callable[[str, str, float | None], None]
) -> tuple[Denoiser, Capabilities]:
    """Raises BundleError or LibtorchError; and FolderError if the bundle's tokenizer or scheduler is damaged."""
    try:
        folder = ModelFolder.open(Path(settings.bundle) / "model")
        tokenizers = [
            Tokenizer.load(folder.path / name.replace("text_encoder", "tokenizer"))
            for name in ("text_encoder", "text_encoder_2")
            if name in folder.components
        ]
    except FolderError:
        prelude.result()  # if the bundle is damaged as a whole, it says so better
        raise
    mark("tokenizers", "interpreter", None)
    opened = prelude.result()
    for moment in prelude.moments:
        mark(*moment)
    manifest = opened.bundle.manifest
    runtime = BakedRuntime(opened.device, opened.geometry, opened.programs, opened.weights)
    previews = any(recipe.kind == "preview" for recipe in manifest.packages)
    denoiser = Denoiser(
        runtime,
        tokenizers,
        NoiseSchedule.from_config(folder.config("scheduler")),
        runtime if previews else LatentRGB.load(folder.path, sdxl=len(tokenizers) == 2),
        channels=manifest.channels,
        scale=manifest.scale,
        zero_empty_prompt=bool(folder.index.get("force_zeros_for_empty_prompt")),
        max_rows=min(settings.max_rows, manifest.max_rows),
        now=now,
    )
    return denoiser, of_bundle(manifest, folder, settings, tokenizers)
