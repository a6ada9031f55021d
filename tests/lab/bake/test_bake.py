"""A bundle holds what the model holds, and its packages compute what the model's own modules compute."""

import functools
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from predictor.engine.baked.bundle import Bundle
from predictor.engine.baked.machine import describe
from predictor.engine.baked.manifest import ALIGNMENT
from predictor.engine.folder import ModelFolder
from predictor.engine.samplers import SAMPLERS, NoiseSchedule
from predictor.engine.tokens import Tokenizer
from predictor.lab.bake import compile as compilation
from predictor.lab.bake import packing, plan, weights
from predictor.lab.bake.bundling import Unfinished
from predictor.lab.bake.children import BakeError
from predictor.lab.bake.preview import PreviewDecoder
from predictor.lab.bake.progress import Board
from tests.lab.bake.conftest import ROWS, SIDE, Baked, Oven
from tests.lab.bake.stepping import random_rows, step_inputs

Bake = Callable[[str], Baked]
Eager = Callable[[Path], Any]
both = pytest.mark.parametrize("name", ["small-sd", "small-sdxl"])


def runner(baked: Baked, name: str):
    """A package of the bundle in torch's own runner, its weights bound as the bundle says."""
    bundle = Bundle.open(baked.bundle)
    package = next(package for package in bundle.manifest.packages if package.name == name)
    stored = np.fromfile(baked.bundle / "weights.bin", np.uint8)

    def tensor(name: str) -> torch.Tensor:
        spec = bundle.index.tensors[name]
        flat = torch.from_numpy(stored[spec.offset :].copy())
        flat = flat[: flat.numel() // 4 * 4].view(getattr(torch, spec.dtype))
        return flat.as_strided(spec.shape, spec.strides)

    loaded = compilation.load(baked.bundle / package.library, "cpu")
    names = loaded.get_constant_names_to_original_fqns()
    constants = {own: tensor(package.constants[original]) for own, original in names.items()}
    loaded.update_constant_buffer(constants, False, True, True)
    return functools.partial(_run, loaded, constants)


def _run(loaded, constants, *inputs):
    return loaded.run(list(inputs))  # with `constants` kept alive


@both
def test_a_bundle_opens_and_fits_the_machine_that_baked_it(baked: Bake, name: str) -> None:
    bundle = Bundle.open(baked(name).bundle)
    bundle.verify_files()
    assert bundle.unfit(describe("cpu")) == []
    manifest = bundle.manifest
    assert manifest.samplers == tuple(SAMPLERS)
    assert manifest.dtype == "float32"
    assert manifest.revision == ModelFolder.open(baked(name).model).revision()
    size = f"{SIDE}x{SIDE}"
    assert {package.name for package in manifest.packages} == {
        *("text", f"step-{size}-1", f"step-{size}-n", f"decode-{size}", f"preview-{size}")
    }
    (several,) = [package for package in manifest.packages if package.name == f"step-{size}-n"]
    assert (several.images, several.evaluations) == ((2, ROWS), (2, 2 * ROWS))


@both
def test_tokens_and_schedule_come_from_the_bundle_alone(baked: Bake, name: str) -> None:
    ours, theirs = (ModelFolder.open(path) for path in (baked(name).bundle / "model", baked(name).model))
    prompt = "a red circle on a blue background"
    for tokenizer in (name for name in ours.components if name.startswith("tokenizer")):
        ids = [Tokenizer.load(folder.path / tokenizer).encode(prompt).ids for folder in (ours, theirs)]
        assert (ids[0] == ids[1]).all()
    schedules = [NoiseSchedule.from_config(folder.config("scheduler")).alphas_cumprod for folder in (ours, theirs)]
    assert (schedules[0] == schedules[1]).all()
    assert ours.config("unet") == theirs.config("unet")
    assert not list((baked(name).bundle / "model").rglob("*.safetensors"))


@both
def test_weights_are_aligned_stored_once_and_only_what_packages_read(baked: Bake, name: str) -> None:
    bundle = Bundle.open(baked(name).bundle)
    index, packages = bundle.index, bundle.manifest.packages
    assert all(spec.offset % ALIGNMENT == 0 for spec in index.tensors.values())
    used = {tensor for package in packages for tensor in package.constants.values()}
    assert used == set(index.tensors)
    one, several = (package.constants for package in packages if package.kind == "step")
    assert one == several
    assert not [tensor for tensor in index.tensors if tensor.startswith(("vae.encoder", "vae.quant_conv"))]
    size = (baked(name).bundle / "weights.bin").stat().st_size
    tensors = sum(4 * int(np.prod(spec.shape)) for spec in index.tensors.values())
    assert tensors <= size == index.size < tensors + ALIGNMENT * len(index.tensors)
    assert (index.chunk, len(index.sha256)) == (weights.CHUNK, -(-size // weights.CHUNK))


def test_convolutions_lie_channels_last(baked: Bake) -> None:
    spec = Bundle.open(baked("small-sd").bundle).index.tensors["unet.conv_in.weight"]
    assert (spec.shape, spec.strides) == ((32, 4, 3, 3), (36, 1, 12, 4))


@both
@pytest.mark.parametrize("guided", [[7.5, 1.0], [1.0, 1.0, 1.0], [2.0, 3.0, 1.0, 7.5], [4.0, 4.0]])
def test_a_step_is_that_of_the_eager_runtime(baked: Bake, eager: Eager, name: str, guided: list[float]) -> None:
    runtime = eager(baked(name).model)
    rng = np.random.default_rng(len(guided))
    rows = random_rows(runtime, rng, guided)
    states = runtime.step(rows)
    got = runner(baked(name), f"step-{SIDE}x{SIDE}-n")(*step_inputs(rows, xl=name == "small-sdxl"))
    for number, state in enumerate(states):
        for tensor, expected in zip(got, (state.latents, state.denoised), strict=True):
            torch.testing.assert_close(tensor[number], expected, rtol=1e-4, atol=1e-4)


@both
def test_a_single_step_is_that_of_the_eager_runtime(baked: Bake, eager: Eager, name: str) -> None:
    runtime = eager(baked(name).model)
    rows = random_rows(runtime, np.random.default_rng(9), [5.0])
    (state,) = runtime.step(rows)
    got = runner(baked(name), f"step-{SIDE}x{SIDE}-1")(*step_inputs(rows, xl=name == "small-sdxl"))
    torch.testing.assert_close(got[0][0], state.latents, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(got[1][0], state.denoised, rtol=1e-4, atol=1e-4)


@both
def test_text_and_pictures_are_those_of_the_eager_runtime(baked: Bake, eager: Eager, name: str) -> None:
    runtime = eager(baked(name).model)
    rng = np.random.default_rng(3)
    tokens = tuple(rng.integers(0, 2000, 77) for _ in runtime.text_encoders)
    embedding = runtime.encode([tokens])[0]
    got = runner(baked(name), "text")(*(torch.from_numpy(ids[None]) for ids in tokens))
    torch.testing.assert_close(got[0][0], embedding.hidden, rtol=1e-4, atol=1e-5)
    if name == "small-sdxl":
        torch.testing.assert_close(got[1][0], embedding.pooled, rtol=1e-4, atol=1e-5)
    state = runtime.step(random_rows(runtime, rng, [1.0]))
    picture = runner(baked(name), f"decode-{SIDE}x{SIDE}")(state[0].latents[None])[0][0].numpy()
    (expected,) = runtime.decode(state)
    assert picture.shape == expected.shape == (SIDE, SIDE, 3)
    assert np.abs(picture.astype(int) - expected).max() <= 1


def test_another_checkpoint_of_the_architecture_compiles_nothing(
    baked: Bake, oven: Oven, small: Callable[..., Path], tmp_path: Path, broken_compiler: None
) -> None:
    baked("small-sd")
    status, output = oven.bake(small("small-sd", seed=1), tmp_path / "other")
    assert status == 0, output
    assert len(re.findall(r"^  \S+ +reused", output, re.MULTILINE)) == 5
    assert "compiling" not in output
    # The check has run its own weights, not those of the first checkpoint, through the same code.
    assert len(re.findall(r"done .*off by", output)) == 5
    first, other = (Bundle.open(path) for path in (baked("small-sd").bundle, tmp_path / "other"))
    assert first.index.sha256 != other.index.sha256
    assert first.index.tensors == other.index.tensors


def test_a_failed_compilation_is_told_in_words(
    small: Callable[..., Path], tmp_path: Path, broken_compiler: None
) -> None:
    status, output = Oven(tmp_path / "cache").bake(small("small-sd"), tmp_path / "out", "--jobs", "2")
    assert status == 1
    assert re.search(r"sdzero bake: package \S+: its compilation ended with status 1; its log ends:", output)
    assert "this compiler is broken" in output
    assert not (tmp_path / "out" / "manifest.json").exists()
    assert [path for path in (tmp_path / "cache").iterdir() if path.name.startswith(".making")] == []


def test_a_package_that_computes_something_else_is_found(baked: Bake, tmp_path: Path) -> None:
    made = baked("small-sd")
    bundle = Bundle.open(made.bundle)
    folder = ModelFolder.open(made.model)
    job = next(job for job in plan.jobs(folder, "cpu", [], ROWS, False) if job.name == f"step-{SIDE}x{SIDE}-1")
    package = next(package for package in bundle.manifest.packages if package.name == job.name)
    scale, shift = "unet.conv_norm_out.weight", "unet.conv_norm_out.bias"
    swapped = package.constants | {scale: package.constants[shift], shift: package.constants[scale]}
    preview = tmp_path / "preview.safetensors"
    save_file(PreviewDecoder(job.channels).state_dict(), preview)
    unfinished, board = Unfinished(made.bundle), Board([job.name])
    packing.check(unfinished, folder, [job], [package], preview, board)
    with pytest.raises(BakeError, match=rf"package {job.name}: (.|\n)*differs from the model's own module by"):
        packing.check(unfinished, folder, [job], [msgspec.structs.replace(package, constants=swapped)], preview, board)


def test_a_bundle_is_replaced_only_by_force(baked: Bake, oven: Oven, tmp_path: Path) -> None:
    made = baked("small-sd")
    shutil.copytree(made.bundle, tmp_path / "there")
    status, output = oven.bake(made.model, tmp_path / "there")
    assert status == 2
    assert "holds a bundle; --force replaces it" in output
    Bundle.open(tmp_path / "there")
    status, output = oven.bake(made.model, tmp_path / "there", "--force", "--no-check", "--max-rows", "1")
    assert status == 0, output
    assert {package.name for package in Bundle.open(tmp_path / "there").manifest.packages} == {
        *("text", f"step-{SIDE}x{SIDE}-1", f"decode-{SIDE}x{SIDE}", f"preview-{SIDE}x{SIDE}")
    }
