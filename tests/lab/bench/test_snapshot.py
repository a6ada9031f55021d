from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, DiffusionPipeline, UNet2DConditionModel
from safetensors import safe_open
from safetensors.torch import load_file
from transformers import CLIPTextConfig, CLIPTextModel

from predictor.lab.bench.architectures import ARCHITECTURES
from predictor.lab.bench.snapshot import write_snapshot

TINY = [name for name in ARCHITECTURES if name.startswith("tiny-")]


@pytest.mark.parametrize(
    ("architecture", "millions", "tensors"), [("sd15", 859.5, 686), ("sd21", 865.9, 686), ("sdxl", 2567.5, 1680)]
)
def test_the_unet_has_the_published_number_of_parameters(architecture: str, millions: float, tensors: int) -> None:
    with torch.device("meta"):
        unet = UNet2DConditionModel(**ARCHITECTURES[architecture].unet)
    parameters = list(unet.parameters())
    assert len(parameters) == tensors
    assert sum(p.numel() for p in parameters) / 1e6 == pytest.approx(millions, abs=0.06)


@pytest.mark.parametrize("architecture", ["sd15", "sd21", "sdxl"])
def test_the_vae_has_the_published_number_of_parameters(architecture: str) -> None:
    with torch.device("meta"):
        vae = AutoencoderKL(**ARCHITECTURES[architecture].vae)
    assert sum(p.numel() for p in vae.parameters()) == 83_653_863


@pytest.mark.parametrize(
    ("architecture", "index", "millions"),
    [("sd15", 0, 123.1), ("sd21", 0, 340.4), ("sdxl", 0, 123.1), ("sdxl", 1, 693.0)],
)
def test_the_text_encoders_have_the_published_number_of_parameters(
    architecture: str, index: int, millions: float
) -> None:
    with torch.device("meta"):
        text = CLIPTextModel(CLIPTextConfig(**ARCHITECTURES[architecture].texts[index].config))
    assert sum(p.numel() for p in text.parameters()) / 1e6 == pytest.approx(millions, abs=0.06)


# diffusers' Euler scheduler still hands torch tensors to numpy the way that numpy 2 deprecates.
@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning")
@pytest.mark.parametrize("architecture", TINY)
def test_diffusers_makes_a_picture_from_it(architecture: str, tmp_path: Path) -> None:
    deviations = write_snapshot(tmp_path, architecture)
    assert deviations.keys() == {"text", "unet", "image"}
    pipeline = DiffusionPipeline.from_pretrained(tmp_path, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(0)
    picture = np.asarray(pipeline("a red cat", num_inference_steps=2, generator=generator).images[0])
    assert picture.shape == (128, 128, 3)
    assert picture.std() > 10


def test_prompts_and_guidance_change_the_picture(tiny: Path) -> None:
    pipeline = DiffusionPipeline.from_pretrained(tiny, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)

    def picture(prompt: str, guidance: float) -> np.ndarray:
        generator = torch.Generator().manual_seed(0)
        made = pipeline(prompt, num_inference_steps=3, guidance_scale=guidance, generator=generator).images[0]
        return np.asarray(made).astype(int)

    base = picture("a red cat", 7.5)
    assert (base == picture("a red cat", 7.5)).all()
    assert np.abs(base - picture("two blue dogs", 7.5)).max() > 2
    assert np.abs(base - picture("a red cat", 2.0)).max() > 2


@pytest.mark.parametrize("architecture", TINY)
def test_tensors_are_fp16_and_named_as_published(architecture: str, tmp_path: Path) -> None:
    write_snapshot(tmp_path, architecture)
    with safe_open(tmp_path / "text_encoder" / "model.safetensors", "pt") as text:
        assert "text_model.embeddings.token_embedding.weight" in text.keys()  # noqa: SIM118
        assert text.metadata() == {"format": "pt"}
    for file in tmp_path.rglob("*.safetensors"):
        assert {tensor.dtype for tensor in load_file(file).values()} == {torch.float16}


def test_a_seed_fixes_the_weights(tiny: Path, tmp_path: Path) -> None:
    file = "unet/diffusion_pytorch_model.safetensors"
    write_snapshot(tmp_path / "same", "tiny-sd15", seed=0)
    write_snapshot(tmp_path / "other", "tiny-sd15", seed=1)
    assert (tmp_path / "same" / file).read_bytes() == (tiny / file).read_bytes()
    assert (tmp_path / "other" / file).read_bytes() != (tiny / file).read_bytes()


def test_an_unknown_architecture_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="architecture: got 'sd3'; allowed: sd15, sd21, sdxl"):
        write_snapshot(tmp_path, "sd3")
