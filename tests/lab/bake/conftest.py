"""Models with every kind of block and few of each, and bundles that are baked of them once per session."""

import contextlib
import dataclasses
import functools
import io
import os
import shutil
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from predictor.engine.denoiser import Denoiser
from predictor.engine.load import load
from predictor.lab.bake import cli
from predictor.lab.bench.architectures import ARCHITECTURES
from predictor.lab.bench.snapshot import write_snapshot
from predictor.settings import EngineSettings

BLOCKS = {
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    "block_out_channels": (32, 64),
    "attention_head_dim": (2, 4),
}
VAE_BLOCKS = {
    "block_out_channels": (32, 32),
    "down_block_types": ("DownEncoderBlock2D",) * 2,
    "up_block_types": ("UpDecoderBlock2D",) * 2,
    "sample_size": 32,
}
# Pictures of 32 pixels, latents of 16.
SMALL = {
    "small-sd": ("tiny-sd15", BLOCKS),
    "small-sdxl": ("tiny-sdxl", BLOCKS | {"transformer_layers_per_block": (1, 1)}),
}
SIDE, ROWS = 32, 4


@dataclass(frozen=True)
class Baked:
    """A bundle, the model it was made of, and what the bake printed."""

    bundle: Path
    model: Path
    output: str


@dataclass(frozen=True)
class Oven:
    """Bakes with one cache."""

    cache: Path

    def bake(self, model: Path, out: Path, *flags: str) -> tuple[int, str]:
        """Exit status, and standard output and error together."""
        said = io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            places = ["--out", str(out), "--cache", str(self.cache)]
            status = cli.main([str(model), "--device", "cpu", "--max-rows", str(ROWS), *places, *flags])
        return status, said.getvalue()


@pytest.fixture(scope="session", autouse=True)
def quick_compiler():
    """A CPU that need not be probed, and wrappers that need not be fast."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCHINDUCTOR_VEC_ISA_OK", "1")
        patch.setenv("AOT_INDUCTOR_COMPILE_WRAPPER_OPT_LEVEL", "O0")
        yield


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """The folder of a small model with random weights; another seed is another checkpoint."""
    made: dict[tuple[str, int], Path] = {}

    def model(name: str, seed: int = 0) -> Path:
        if (name, seed) not in made:
            base, unet = SMALL[name]
            full = ARCHITECTURES[base]
            folder = tmp_path_factory.mktemp("models") / f"{name}-{seed}"
            with pytest.MonkeyPatch.context() as patch:
                shape = dataclasses.replace(full, unet=full.unet | unet, vae=full.vae | VAE_BLOCKS)
                patch.setitem(ARCHITECTURES, name, shape)
                write_snapshot(folder, name, seed=seed)
            made[name, seed] = folder
        return made[name, seed]

    return model


@pytest.fixture(scope="session")
def oven(tmp_path_factory: pytest.TempPathFactory) -> Oven:
    return Oven(tmp_path_factory.mktemp("oven") / "cache")


@pytest.fixture(scope="session")
def baked(oven: Oven, small: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Baked]:
    """A bundle of a small model; baked when it is first asked for."""
    made: dict[str, Baked] = {}

    def of(name: str) -> Baked:
        if name not in made:
            out = tmp_path_factory.mktemp("bundles") / name
            status, output = oven.bake(small(name), out)
            assert status == 0, output
            made[name] = Baked(out, small(name), output)
        return made[name]

    return of


@pytest.fixture(scope="session")
def eager() -> Callable[[Path], Any]:
    """The eager runtime of a model folder."""

    @functools.cache
    def runtime(model: Path) -> Any:
        worker, _ = load(EngineSettings(model=str(model), device="cpu", threads=1), lambda *_: None)
        assert isinstance(worker, Denoiser)
        return worker.runtime

    return runtime


@pytest.fixture
def broken_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """g++ that says which version it is and compiles nothing."""
    real = shutil.which("g++")
    fake = tmp_path / "bin" / "g++"
    fake.parent.mkdir()
    fake.write_text(
        f'#!/bin/sh\ncase "$*" in -dumpfullversion|--version) exec {real} "$@";; esac\n'
        "echo this compiler is broken >&2\nexit 1\n"
    )
    fake.chmod(fake.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{fake.parent}:{os.environ['PATH']}")
