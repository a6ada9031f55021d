import json
from pathlib import Path

import pytest

from predictor.lab.bench.cli import main


def test_a_run_writes_samples_tables_and_a_plot(tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    work = ["--model", str(tiny), "--device", "cpu", "--steps", "2", "--size", "128", "--sides", "plain"]
    amount = [
        "--only",
        "single,batch,load",
        "--repeats",
        "2",
        "--batches",
        "2",
        "--batch-repeats",
        "1",
        "--bursts",
        "1",
    ]
    where = ["--arrivals", "2", "--name", "run", "--out", str(tmp_path), "--commit", "abc", "--plot"]
    assert main(["run", *work, *amount, *where]) == 0
    out = capsys.readouterr()
    assert "warm, one image" in out.out
    assert "burst of 16 1/1 plain" in out.err
    result = json.loads((tmp_path / "run.json").read_text())
    assert [sample["facet"] for sample in result["raw"]["latency"]] == ["single", "single", "batch"]
    assert [run["schedule"] for run in result["raw"]["load"]] == ["burst of 16", "Poisson at 70% of plain"]
    assert str(tiny.parent) not in json.dumps(result)
    assert result["commit"] == "abc"
    assert result["command"].startswith(
        "sdzero bench run --model tiny-sd15 --device cpu --name run --only single,batch,load"
    )
    assert (tmp_path / "run.png").stat().st_size > 1000
    assert main(["report", str(tmp_path), "--out", str(tmp_path / "report")]) == 0
    assert (tmp_path / "report" / "benchmarks.md").is_file()


def test_a_snapshot_is_written_and_described(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["snapshot", str(tmp_path / "model"), "--architecture", "tiny-sdxl"]) == 0
    assert "tiny-sdxl written" in capsys.readouterr().out
    assert (tmp_path / "model" / "text_encoder_2" / "model.safetensors").is_file()


@pytest.mark.parametrize(
    ("flag", "value", "allowed"),
    [
        ("--only", "cold,hot", "cold, single, batch, load"),
        ("--trials", "0", "whole numbers from 1"),
        ("--batches", "x", "whole numbers from 1"),
    ],
)
def test_wrong_arguments_are_refused_by_name(
    flag: str, value: str, allowed: str, tiny: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["run", "--model", str(tiny), "--device", "cpu", "--name", "x", flag, value])
    assert stopped.value.code == 2
    message = capsys.readouterr().err
    assert flag in message
    assert value in message
    assert allowed in message


def test_a_folder_that_is_no_model_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--model", str(tmp_path), "--device", "cpu", "--name", "x", "--commit", "abc"]) == 2
    assert "model_index.json" in capsys.readouterr().err


def test_a_run_that_fails_says_why_and_keeps_what_it_had(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "tiny-sd15"
    broken.mkdir()
    (broken / "model_index.json").write_text("{}")
    work = ["--model", str(broken), "--device", "cpu", "--steps", "1", "--size", "128", "--sides", "plain"]
    assert main(["run", *work, "--only", "single", "--name", "run", "--out", str(tmp_path), "--commit", "abc"]) == 1
    message = capsys.readouterr().err
    assert "stopped early: plain: first request: RemoteDisconnected" in message
    assert "_class_name" in message
    assert json.loads((tmp_path / "run.json").read_text())["raw"]["latency"] == []
