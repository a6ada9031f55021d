import itertools
import json
from pathlib import Path

import pytest

from predictor.clock import now
from predictor.lab.bench.cli import FACETS, main
from predictor.lab.bench.run import MEASURE


def test_a_run_writes_samples_tables_and_a_plot(tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    work = ["--model", str(tiny), "--device", "cpu", "--steps", "2", "--size", "128", "--sides", "plain"]
    amount = [
        "--only",
        "single,load,memory,batch,poisson",
        "--repeats",
        "2",
        "--batches",
        "2",
        "--batch-repeats",
        "1",
        "--bursts",
        "1",
        "--concurrency",
        "1,2",
    ]
    where = ["--arrivals", "2", "--name", "run", "--out", str(tmp_path), "--commit", "abc", "--plot"]
    assert main(["run", *work, *amount, *where]) == 0
    out = capsys.readouterr()
    assert "warm, one image" in out.out
    assert "burst of 2 1/1 plain" in out.err
    result = json.loads((tmp_path / "run.json").read_text())
    assert [sample["facet"] for sample in result["raw"]["latency"]] == ["single", "single", "batch"]
    assert [run["schedule"] for run in result["raw"]["load"]] == ["burst of 1", "burst of 2", "Poisson at 70% of plain"]
    assert [memory["side"] for memory in result["raw"]["memory"]] == ["plain"]
    assert result["missing"] == []
    assert str(tiny.parent) not in json.dumps(result)
    assert result["commit"] == "abc"
    assert result["command"].startswith(
        "sdzero bench run --model tiny-sd15 --device cpu --name run --only single,load,memory,batch,poisson"
    )
    assert (tmp_path / "run.png").stat().st_size > 1000
    assert main(["report", str(tmp_path), "--out", str(tmp_path / "report")]) == 0
    assert (tmp_path / "report" / "benchmarks.md").is_file()


def test_the_facets_of_the_command_line_are_measured_in_its_order() -> None:
    assert tuple(MEASURE) == FACETS


def test_a_snapshot_is_written_and_described(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["snapshot", str(tmp_path / "model"), "--architecture", "tiny-sdxl"]) == 0
    assert "tiny-sdxl written" in capsys.readouterr().out
    assert (tmp_path / "model" / "text_encoder_2" / "model.safetensors").is_file()


@pytest.mark.parametrize(
    ("flag", "value", "allowed"),
    [
        ("--only", "cold,hot", "cold, single, load, memory, cold_dropped, batch, poisson"),
        ("--trials", "0", "whole numbers from 1"),
        ("--batches", "x", "whole numbers from 1"),
        ("--concurrency", "0", "whole numbers from 1"),
        ("--budget", "soon", "whole numbers from 1"),
        ("--sides", "ours", "plain, compile, eager, lean"),
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
    assert "missing: single: warm-up plain: plain: first request: RemoteDisconnected" in message
    assert "_class_name" in message
    result = json.loads((tmp_path / "run.json").read_text())
    assert result["raw"]["latency"] == []
    assert result["missing"][0].startswith("single: warm-up plain")


def test_a_spent_budget_ends_a_run_cleanly_and_says_what_is_missing(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = itertools.count(step=100.0)
    monkeypatch.setattr("predictor.lab.bench.session.now", lambda: clock_base + next(clock))
    clock_base = now()
    work = ["--model", str(tiny), "--device", "cpu", "--steps", "1", "--size", "128", "--sides", "plain"]
    amount = ["--only", "single,batch", "--repeats", "9", "--budget", "250"]
    assert main(["run", *work, *amount, "--name", "run", "--out", str(tmp_path), "--commit", "abc"]) == 0
    result = json.loads((tmp_path / "run.json").read_text())
    assert len(result["raw"]["latency"]) == 2
    assert result["missing"] == [
        "single 3/9 plain and what follows: the time budget was spent",
        "batch plain and what follows: the time budget was spent",
    ]
    assert "--budget 250" in result["command"]
    assert "missing: single 3/9" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--sides", "lean"], "--bundle: missing; the side lean serves a bundle that `sdzero bake` wrote"),
        (["--sides", "plain", "--bundle", "{folder}"], "--bundle: only the side lean reads it; got --sides plain"),
        (["--bundle", "{folder}/nowhere"], "nowhere is no folder"),
        (["--bundle", "{folder}"], "manifest.json: Input data was truncated"),
        (["--only", "cold,poisson"], "--only: poisson takes its rates from load; got cold,poisson"),
    ],
)
def test_options_that_do_not_fit_together_are_refused(
    flags: list[str], message: str, tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "manifest.json").write_text("{")
    flags = [flag.format(folder=tmp_path) for flag in flags]
    work = ["--model", str(tiny), "--device", "cpu", "--name", "x", "--out", str(tmp_path), "--commit", "abc"]
    assert main(["run", *work, *flags]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "x.json").exists()
