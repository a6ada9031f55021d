import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from predictor.lab.bake import cli
from predictor.lab.bake.bundling import CONTENTS

SHAPES = Path(__file__).parents[3] / "predictor" / "models" / "shapes"
Refuse = Callable[..., str]


@pytest.fixture
def refuse(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Refuse:
    """Bakes what cannot be baked; returns what is said on standard error."""

    def run(model: Path = SHAPES, out: Path = tmp_path / "out", device: str = "cpu", *flags: str) -> str:
        cache = tmp_path / "cache"
        try:
            status = cli.main([str(model), "--device", device, "--out", str(out), "--cache", str(cache), *flags])
        except SystemExit as ended:
            status = int(ended.code or 0)
        assert status == 2
        assert not cache.exists()
        return capsys.readouterr().err

    return run


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A copy of the demo model that may be changed."""
    return Path(shutil.copytree(SHAPES, tmp_path / "model"))


def change(path: Path, **values: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_a_folder_that_is_no_model(refuse: Refuse, tmp_path: Path) -> None:
    assert f"sdzero bake: {tmp_path}/model_index.json: No such file" in refuse(model=tmp_path)


def test_a_pipeline_that_is_not_stepped_here(refuse: Refuse, model: Path) -> None:
    change(model / "model_index.json", _class_name="FluxPipeline")
    said = refuse(model=model)
    assert "cannot be baked: its architecture is FluxPipeline" in said
    assert "`sdzero serve-predictor` can run it as it is" in said


def test_a_model_without_weights(refuse: Refuse, model: Path) -> None:
    (model / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    assert "unet: no weights" in refuse(model=model)


def test_no_compiler(refuse: Refuse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "install g++" in refuse()


@pytest.mark.skipif(Path("/dev/nvidiactl").exists(), reason="this machine has a GPU")
def test_no_gpu(refuse: Refuse) -> None:
    assert "a bundle for cuda needs" in refuse(device="cuda")


def test_a_folder_that_holds_something_else_is_never_emptied(refuse: Refuse, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("years of work")
    (tmp_path / "out" / "manifest.json").touch()
    said = refuse(SHAPES, tmp_path / "out", "cpu", "--force")
    assert "is not empty and no bundle (thesis.txt is in it); give another folder" in said
    assert (tmp_path / "out" / "thesis.txt").read_text() == "years of work"


def test_an_unfinished_bundle_is_not_replaced_unasked(refuse: Refuse, tmp_path: Path) -> None:
    (tmp_path / "out" / "packages").mkdir(parents=True)
    assert "holds an unfinished bundle; --force replaces it" in refuse()
    assert (tmp_path / "out" / "packages").is_dir()


def test_the_place_of_a_file(refuse: Refuse, tmp_path: Path) -> None:
    (tmp_path / "out").touch()
    assert "is a file" in refuse()


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--size", "512"), "expected HEIGHTxWIDTH"),
        (("--size", "60x128"), "--size 60x128: allowed for this model: sides from 64, multiples of 8"),
        (("--max-rows", "2"), "got '2'; allowed: 1, 3 to 31"),
        (("--max-rows", "32"), "got '32'; allowed: 1, 3 to 31"),
        (("--jobs", "0"), "got '0'; allowed: whole numbers from 1"),
    ],
)
def test_flags_out_of_range_are_refused(refuse: Refuse, tmp_path: Path, flags: tuple[str, ...], said: str) -> None:
    assert said in refuse(SHAPES, tmp_path / "out", "cpu", *flags)
    assert not (tmp_path / "out").exists()


def test_help_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["--help"])
    assert ended.value.code == 0
    said = capsys.readouterr().out
    for name in ("manifest.json", "packages/", "weights.bin", "model/", "--cache", "--no-check", "sdzero inspect"):
        assert name in said
    assert {"manifest.json", "packages", "weights.bin", "model"} <= set(CONTENTS)
