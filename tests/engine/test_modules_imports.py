"""What is installed beside diffusers does not decide whether a model loads."""

import os
import subprocess
import sys
from pathlib import Path

LOADS = """
import sys
from predictor.engine.modules import _only_what_runs
with _only_what_runs():
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
print("transformers" in sys.modules, "peft" in sys.modules)
"""


def test_peft_is_left_alone_although_it_is_installed(tmp_path: Path) -> None:
    (tmp_path / "peft").mkdir()
    (tmp_path / "peft" / "__init__.py").write_text("import transformers\n")
    metadata = tmp_path / "peft-0.18.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: peft\nVersion: 0.18.0\n")
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    ended = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", LOADS],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.split() == ["False", "False"]
