"""What is installed beside diffusers does not decide whether a model loads."""

import os
import subprocess
import sys
from pathlib import Path

LOADS = """
import sys
from predictor.engine.modules import _diffusers_class
print(_diffusers_class("models.unets.unet_2d_condition", "UNet2DConditionModel").__name__)
print(_diffusers_class("models.autoencoders.autoencoder_kl", "AutoencoderKL").__name__)
print("transformers" in sys.modules)
"""


def installed(folder: Path, name: str, version: str, files: dict[str, str]) -> None:
    """A package as an installer leaves it."""
    (folder / name).mkdir()
    for file, text in files.items():
        (folder / name / file).write_text(text)
    metadata = folder / f"{name}-{version}.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")


def loaded(folder: Path, first: str = "") -> list[str]:
    path = os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])
    ended = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", first + LOADS],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.split()


def test_peft_is_left_alone_although_it_is_installed(tmp_path: Path) -> None:
    installed(tmp_path, "peft", "0.18.0", {"__init__.py": "import transformers\n"})
    assert loaded(tmp_path) == ["UNet2DConditionModel", "AutoencoderKL", "False"]


def test_an_import_that_fails_the_quick_way_is_done_the_ordinary_way(tmp_path: Path) -> None:
    # As if something beside diffusers needed what is left out: the import breaks off in its midst.
    less = "m._only_what_runs = lambda: m.stand_ins({'diffusers.models.resnet': None})"
    (tmp_path / "insists.py").write_text(f"import predictor.engine.modules as m\n{less}\n")
    assert loaded(tmp_path, "import insists\n")[:2] == ["UNet2DConditionModel", "AutoencoderKL"]
