import subprocess
from pathlib import Path

import pytest

from predictor.lab.bench.sides import Side, choose

NAMES = ("plain", "compile", "eager", "lean")


@pytest.fixture
def sides(tmp_path: Path) -> dict[str, Side]:
    return {side.name: side for side in choose(NAMES, tmp_path / "bundle", tmp_path / "compiled")}


def arguments(side: Side) -> list[str]:
    command = side.command(Path("folder"), "cuda", 1, 2)
    return command[command.index("-m") + 1 :]


def test_each_side_is_started_with_what_it_is_about(sides: dict[str, Side], tmp_path: Path) -> None:
    plain = ["predictor.lab.bench.plain", "--model", "folder", "--device", "cuda", "--port", "1"]
    ports = ["--device", "cuda", "--http-port", "1", "--grpc-port", "2"]
    assert list(sides) == list(NAMES)
    assert arguments(sides["plain"]) == plain
    assert arguments(sides["compile"]) == [*plain, "--compile"]
    assert arguments(sides["eager"]) == ["predictor.cli", "serve-predictor", "--model", "folder", *ports]
    # The bundle holds all of the model: the folder is not even named.
    bundle = str(tmp_path / "bundle")
    assert arguments(sides["lean"]) == ["predictor.cli", "serve-predictor", "--bundle", bundle, *ports]


def test_compiled_code_goes_to_the_folder_of_the_run(sides: dict[str, Side], tmp_path: Path) -> None:
    command = sides["compile"].command(Path("folder"), "cpu", 1, 2)
    show = [*command[: command.index("-m")], "-c", "import os; print(os.environ['TORCHINDUCTOR_CACHE_DIR'])"]
    assert subprocess.run(show, capture_output=True, text=True, check=True).stdout == f"{tmp_path / 'compiled'}\n"


def test_only_the_sides_that_were_asked_for_take_part(tmp_path: Path) -> None:
    assert [side.name for side in choose(("eager", "plain"), None, tmp_path)] == ["plain", "eager"]
