"""The eager runtime makes the pictures that diffusers makes, alone, batched and joined midway."""

import functools
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import CLIPTextModelWithProjection, CLIPTokenizer

from predictor.core.messages import Ended, Finished
from predictor.core.problems import Cancelled
from predictor.engine.denoiser import Denoiser, Event
from predictor.engine.folder import FolderError
from predictor.engine.load import foreseen, load
from predictor.engine.noise import gaussian
from predictor.engine.weights import WeightError
from predictor.lab.bench.snapshot import write_snapshot
from predictor.settings import EngineSettings
from tests.engine import asking
from tests.engine.asking import drain

Engines = Callable[[str], tuple[Path, Any]]


generate = functools.partial(asking.generate, height=128, width=128)


def no_mark(*_: object) -> None:
    """Marks are for cold starts."""


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Engines:
    """(folder, loaded worker) of a tiny model with random weights, by architecture; made once."""
    made: dict[str, tuple[Path, Any]] = {}

    def engine(architecture: str) -> tuple[Path, Any]:
        if architecture not in made:
            folder = tmp_path_factory.mktemp(architecture)
            write_snapshot(folder, architecture)
            worker, _ = load(EngineSettings(model=str(folder), device="cpu", threads=2), no_mark)
            made[architecture] = (folder, worker)
        return made[architecture]

    return engine


def pictures(events: list[Event], id: str = "a") -> np.ndarray:
    return next(np.stack(buffers) for message, buffers in events if isinstance(message, Finished) and message.id == id)


def alone(worker: Any, **changes: object) -> np.ndarray:
    worker.add(generate(**changes))
    return pictures(drain(worker))


def apart(a: np.ndarray, b: np.ndarray) -> int:
    return int(np.abs(a.astype(int) - b.astype(int)).max())


@pytest.mark.parametrize("architecture", ["tiny-sd15", "tiny-sd21", "tiny-sdxl"])
@pytest.mark.parametrize("negative", ["", "blue"])
def test_pictures_are_those_of_diffusers(engines: Engines, architecture: str, negative: str) -> None:
    folder, worker = engines(architecture)
    pipe = diffusers.DiffusionPipeline.from_pretrained(folder, dtype=torch.float32, safety_checker=None)
    pipe.set_progress_bar_config(disable=True)
    pipe.scheduler = diffusers.DDIMScheduler.from_config(pipe.scheduler.config)
    latents = torch.from_numpy(gaussian(1, 0, (1, 4, 16, 16)))
    expected = pipe(
        "a red circle",
        negative_prompt=negative or None,
        num_inference_steps=4,
        guidance_scale=5.0,
        latents=latents,
        height=128,
        width=128,
        output_type="np",
    ).images
    got = alone(worker, negative_prompt=negative)
    assert got.std() > 1, "a flat picture would prove nothing"
    assert apart(got, (expected * 255).round().astype(np.uint8)) <= 1


@pytest.mark.parametrize("sampler", ["ddim", "euler_a", "dpmpp_2m_karras"])
def test_alone_batched_and_joined_midway_differ_by_rounding_only(engines: Engines, sampler: str) -> None:
    _, worker = engines("tiny-sd15")
    expected = alone(worker, sampler=sampler)
    assert np.array_equal(alone(worker, sampler=sampler), expected)
    for number in range(4):
        prompt = f"stranger {number}"
        worker.add(
            generate(f"s{number}", seed=number, prompt=prompt, steps=6, sampler="lcm" if number % 2 else "euler")
        )
    events = drain(worker, calls=2)
    worker.add(generate(sampler=sampler))
    assert apart(pictures(events + drain(worker)), expected) <= 2


def test_without_guidance_the_negative_prompt_changes_nothing(engines: Engines) -> None:
    _, worker = engines("tiny-sd15")
    plain = alone(worker, guidance_scale=1.0)
    assert np.array_equal(alone(worker, guidance_scale=1.0, negative_prompt="blue"), plain)
    # In a batch with a row that is guided, both halves run, and the picture stays.
    worker.add(generate("guided", guidance_scale=9.0))
    worker.add(generate(guidance_scale=1.0))
    assert apart(pictures(drain(worker)), plain) <= 2


def test_sizes_other_than_the_native_one(engines: Engines) -> None:
    _, worker = engines("tiny-sdxl")
    assert alone(worker, height=64, width=192).shape == (1, 64, 192, 3)


def test_a_pipeline_of_another_kind_runs_one_request_at_a_time(tmp_path: Path) -> None:
    write_snapshot(tmp_path, "tiny-sd15")
    config = tmp_path / "scheduler/scheduler_config.json"
    config.write_text(config.read_text().replace("scaled_linear", "squaredcos_cap_v2"))
    worker, capabilities = load(EngineSettings(model=str(tmp_path), device="cpu", threads=2), no_mark)
    assert not isinstance(worker, Denoiser)
    assert capabilities.runtime == "pipeline"
    assert "sampler" not in capabilities.parameters
    worker.add(generate("a", num_images=2))
    worker.add(generate("b", steps=50))
    worker.add(generate("c"))
    events = drain(worker, calls=3)
    events += worker.end("b", Cancelled("gone"))
    events += drain(worker)
    both = pictures(events)
    assert both.shape == (2, 128, 128, 3)
    assert apart(both[0], both[1]) > 2, "two images have two seeds"
    assert apart(pictures(events, "c")[0], both[0]) == 0, "the same seed gives the same picture"
    assert [m.problem.code for m, _ in events if isinstance(m, Ended)] == ["cancelled"]


def test_stable_diffusion_3_runs_as_it_is(tmp_path: Path) -> None:
    """Another architecture altogether: a transformer with flow matching, two of its three text encoders."""
    parts = tmp_path / "parts"
    write_snapshot(parts, "tiny-sdxl")
    encoders = [
        CLIPTextModelWithProjection.from_pretrained(parts / "text_encoder_2", dtype=torch.float32) for _ in range(2)
    ]
    width, pooled = encoders[0].config.hidden_size, encoders[0].config.projection_dim
    torch.manual_seed(0)
    pipe = diffusers.StableDiffusion3Pipeline(
        transformer=diffusers.SD3Transformer2DModel(
            sample_size=16,
            patch_size=2,
            in_channels=4,
            num_layers=1,
            attention_head_dim=8,
            num_attention_heads=4,
            joint_attention_dim=2 * width,
            caption_projection_dim=32,
            pooled_projection_dim=2 * pooled,
            out_channels=4,
        ),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(),
        vae=diffusers.AutoencoderKL.from_pretrained(parts / "vae", dtype=torch.float32),
        text_encoder=encoders[0],
        text_encoder_2=encoders[1],
        tokenizer=CLIPTokenizer.from_pretrained(parts / "tokenizer"),
        tokenizer_2=CLIPTokenizer.from_pretrained(parts / "tokenizer_2"),
        text_encoder_3=None,
        tokenizer_3=None,
    )
    pipe.vae.register_to_config(shift_factor=0.0)
    pipe.save_pretrained(tmp_path / "sd3")
    settings = EngineSettings(model=str(tmp_path / "sd3"), device="cpu", threads=2)
    worker, capabilities = load(settings, no_mark)
    assert foreseen(settings) == capabilities
    assert (capabilities.architecture, capabilities.runtime) == ("StableDiffusion3Pipeline", "pipeline")
    assert (capabilities.default_height, capabilities.default_width) == (128, 128)
    first = alone(worker, sampler="own")
    assert first.shape == (1, 128, 128, 3)
    assert np.array_equal(alone(worker, sampler="own"), first)
    assert apart(alone(worker, sampler="own", prompt="something else"), first) > 0


def test_an_image_larger_than_the_memory_is_refused_by_the_limit(
    engines: Engines, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = engines("tiny-sd15")
    monkeypatch.setattr("predictor.engine.eager.free_memory", lambda _: 20 * 2**20)
    worker, capabilities = load(EngineSettings(model=str(folder), device="cpu", threads=2), no_mark)
    assert 64 * 64 <= capabilities.max_pixels < 4 * 128 * 128, "less than the settings alone would allow"
    assert worker.runtime.capacity(4096, 4096) == 0  # type: ignore[attr-defined]


def test_a_running_pipeline_is_cancelled_at_its_next_step(tmp_path: Path) -> None:
    write_snapshot(tmp_path, "tiny-sd15")
    config = tmp_path / "scheduler/scheduler_config.json"
    config.write_text(config.read_text().replace("scaled_linear", "squaredcos_cap_v2"))
    worker, _ = load(EngineSettings(model=str(tmp_path), device="cpu", threads=2), no_mark)
    worker.add(generate("a", steps=150))
    drain(worker, calls=2)
    [(ended, _)] = worker.end("a", Cancelled("gone"))
    assert isinstance(ended, Ended)
    assert not worker.busy
    assert pictures(worker.add(generate("b")) + drain(worker), "b").shape == (1, 128, 128, 3)


def broken(folder: Path, how: str) -> tuple[type[Exception], str]:
    weights = folder / "unet/diffusion_pytorch_model.fp16.safetensors"
    weights = weights if weights.exists() else folder / "unet/diffusion_pytorch_model.safetensors"
    match how:
        case "truncated":
            weights.write_bytes(weights.read_bytes()[:-100])
            return WeightError, f"{weights.name}: .* cut short"
        case "garbage":
            weights.write_bytes(b"not a safetensors file at all")
            return WeightError, f"{weights.name}: "
        case "missing":
            weights.unlink()
            return FolderError, "unet: no weights; expected diffusion_pytorch_model.safetensors"
        case "pickle":
            weights.rename(folder / "unet/diffusion_pytorch_model.bin")
            return FolderError, r"diffusion_pytorch_model\.bin: a pickle can run code"
        case "other model":
            weights.write_bytes(next((folder / "vae").glob("*.safetensors")).read_bytes())
            return WeightError, f"{weights.name}: does not match config.json: .* tensors are missing"
        case "no index":
            (folder / "model_index.json").unlink()
            return FolderError, r"model_index\.json: No such file"
        case "bad index":
            (folder / "model_index.json").write_text("{")
            return FolderError, r"model_index\.json: not JSON"
    raise AssertionError(how)


@pytest.mark.parametrize("how", ["truncated", "garbage", "missing", "pickle", "other model", "no index", "bad index"])
def test_a_broken_folder_is_refused_with_the_files_name(tmp_path: Path, how: str) -> None:
    write_snapshot(tmp_path, "tiny-sd15")
    kind, message = broken(tmp_path, how)
    with pytest.raises(kind, match=message):
        load(EngineSettings(model=str(tmp_path), device="cpu"), no_mark)


def test_no_gpu_is_said_in_words(tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU; any machine without one runs this test")
    write_snapshot(tmp_path, "tiny-sd15")
    with pytest.raises(FolderError, match=r"--device cuda: torch .* finds no usable NVIDIA GPU"):
        load(EngineSettings(model=str(tmp_path), device="cuda"), no_mark)


def rewritten(folder: Path, component: str, change: Callable[[str, torch.Tensor], tuple[str, torch.Tensor]]) -> None:
    (file,) = (folder / component).glob("*.safetensors")
    save_file(dict(change(name, tensor) for name, tensor in load_file(file).items()), file)


def test_a_vae_with_the_old_names_and_shapes_of_attention_is_the_same_vae(engines: Engines, tmp_path: Path) -> None:
    folder, worker = engines("tiny-sd15")
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}

    def as_it_was(name: str, tensor: torch.Tensor) -> tuple[str, torch.Tensor]:
        for new, before in old.items():
            if f"attentions.0.{new}." in name:
                return name.replace(new, before), tensor[:, :, None, None] if tensor.dim() == 2 else tensor
        return name, tensor

    rewritten(tmp_path, "vae", as_it_was)
    again, _ = load(EngineSettings(model=str(tmp_path), device="cpu", threads=2), no_mark)
    assert np.array_equal(alone(again), alone(worker))


def test_a_transposed_weight_is_refused_not_reshaped(engines: Engines, tmp_path: Path) -> None:
    folder, _ = engines("tiny-sd15")
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    rewritten(
        tmp_path, "unet", lambda name, t: (name, t.T.contiguous() if name == "time_embedding.linear_1.weight" else t)
    )
    with pytest.raises(WeightError, match=r"time_embedding\.linear_1\.weight has shape .* config\.json asks for"):
        load(EngineSettings(model=str(tmp_path), device="cpu"), no_mark)
