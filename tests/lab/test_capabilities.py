"""`sdzero capabilities` says beforehand what the running predictor says."""

import json
import subprocess
import sys
from pathlib import Path

import httpx
import msgspec
import pytest
from diffusers import UNet2DConditionModel

from predictor.core.request import Capabilities
from predictor.engine.load import load
from predictor.lab.bench.snapshot import write_snapshot
from predictor.lab.capabilities import main
from predictor.settings import EngineSettings
from tests.engine.baked import bundles

SLOW = ("torch", "diffusers", "transformers", "kserve", "zmq")


@pytest.fixture
def said(capsys):
    """Runs the command in this process; what it printed, as JSON."""

    def run(*arguments: object) -> dict:
        assert main([str(argument) for argument in arguments]) == 0
        return json.loads(capsys.readouterr().out)

    return run


@pytest.fixture
def refused(capsys):
    """Runs the command in vain; what it said, and how."""

    def run(*arguments: object) -> str:
        assert main([str(argument) for argument in arguments]) == 2
        printed = capsys.readouterr()
        assert (printed.out, printed.err.count("\n")) == ("", 1)
        assert printed.err.startswith("sdzero capabilities: ")
        return printed.err

    return run


def test_the_running_predictor_says_the_same(predictor, request, demo_model, said):
    source = ("--model", demo_model) if predictor.any_size else ("--bundle", request.getfixturevalue("demo_bundle"))
    assert said(*source, "--device", "cpu") == httpx.get(f"{predictor.model_url}/capabilities").json()


def test_it_is_the_same_for_every_setting_that_is_a_limit(start_predictor, demo_model, said):
    limits = {"max_steps": 30, "max_images": 2, "max_pixels": 20_000, "max_prompt_bytes": 99}
    flags = [text for name, value in limits.items() for text in (f"--{name.replace('_', '-')}", value)]
    running = start_predictor(**limits)
    found = said("--model", demo_model, "--device", "cpu", *flags)
    assert found == httpx.get(f"{running.model_url}/capabilities").json()
    assert {name: found[name] for name in limits} == limits


def test_for_a_gpu_only_device_and_precision_are_others(said, demo_model):
    cpu, cuda = (said("--model", demo_model, "--device", device) for device in ("cpu", "cuda"))
    differing = {name: cuda[name] for name in cpu if cpu[name] != cuda[name]}
    assert differing == {"device": "cuda", "dtype": "float16"}


def test_a_bundle_for_a_gpu_that_is_not_here(tmp_path, said, refused, demo_model, monkeypatch):
    files = [file for file in demo_model.rglob("*") if file.suffix in (".json", ".txt")]
    model = {f"model/{file.relative_to(demo_model)}": file.read_bytes() for file in files}
    monkeypatch.setattr(bundles, "MODEL", model)
    path = bundles.write(tmp_path / "bundle")
    found = said("--bundle", path)
    assert (found["runtime"], found["device"], found["dtype"]) == ("baked", "cuda", "float16")
    assert found["sizes"] == [[64, 64]]
    assert found["max_pixels"] == 64 * 64
    assert "--device is cpu, and it was baked for cuda" in refused("--bundle", path, "--device", "cpu")


@pytest.mark.parametrize("architecture", ["tiny-sd15", "tiny-sdxl"])
def test_other_architectures(tmp_path, said, architecture):
    write_snapshot(tmp_path, architecture)
    _, loaded = load(EngineSettings(model=str(tmp_path), device="cpu", threads=1), lambda *_: None)
    assert msgspec.convert(said("--model", tmp_path, "--device", "cpu"), Capabilities) == loaded


def test_a_pipeline_of_another_kind_is_asked_without_its_weights(tmp_path, said, refused, monkeypatch):
    write_snapshot(tmp_path, "tiny-sd15")
    config = tmp_path / "scheduler/scheduler_config.json"
    config.write_text(config.read_text().replace("scaled_linear", "squaredcos_cap_v2"))
    _, loaded = load(EngineSettings(model=str(tmp_path), device="cpu", threads=1), lambda *_: None)
    monkeypatch.setattr(UNet2DConditionModel, "from_pretrained", None)
    monkeypatch.setattr("safetensors.safe_open", None)
    found = said("--model", tmp_path, "--device", "cpu")
    assert found["runtime"] == "pipeline"
    assert msgspec.convert(found, Capabilities) == loaded
    index = tmp_path / "model_index.json"
    index.write_text(index.read_text().replace("AutoencoderKL", "AutoencoderXX"))
    assert "vae: there is no class diffusers.AutoencoderXX" in refused("--model", tmp_path, "--device", "cpu")


def test_neither_weights_nor_torch_are_touched(demo_model, tmp_path):
    program = (
        "import sys\nfrom predictor.lab.capabilities import main\nassert main(sys.argv[1:]) == 0\nprint(*sys.modules)\n"
    )
    out = tmp_path / "capabilities.json"
    command = [sys.executable, "-c", program, "--model", demo_model, "--device", "cpu", "--out", out]
    ended = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
    assert set(ended.stdout.split()) & set(SLOW) == set()
    assert json.loads(out.read_text())["architecture"] == "StableDiffusionPipeline"


def test_what_is_no_model(tmp_path, refused, demo_model):
    assert f"{tmp_path}/model_index.json: No such file" in refused("--model", tmp_path)
    assert f"{tmp_path}/manifest.json: no such file: not a bundle" in refused("--bundle", tmp_path)
    assert "No such file or directory" in refused("--model", demo_model, "--out", tmp_path / "no" / "file")
    (tmp_path / "model_index.json").write_text((demo_model / "model_index.json").read_text())
    for part in ("unet", "vae", "text_encoder"):
        (tmp_path / part).mkdir()
        (tmp_path / part / "config.json").write_text("{}")
    assert "no weights; expected diffusion_pytorch_model.safetensors" in refused("--model", tmp_path)


def test_a_setting_that_does_not_exist(monkeypatch, capsys, demo_model):
    monkeypatch.setenv("SDZERO_MAX_IMAGE", "3")
    with pytest.raises(SystemExit) as ended:
        main(["--model", str(demo_model)])
    assert ended.value.code == 2
    assert "SDZERO_MAX_IMAGE: no such setting; did you mean SDZERO_MAX_IMAGES?" in capsys.readouterr().err
