import json
from pathlib import Path

import pytest
import yaml

from predictor.lab.sim.cli import plan, simulate

TRACE = Path(__file__).with_name("trace.csv")  # two hours of made-up requests, some of which repeat


def test_simulate_compares_and_writes_everything_down(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, plot = tmp_path / "sim.json", tmp_path / "sim.png"
    assert simulate([str(TRACE), "--out", str(out), "--plot", str(plot), "--seed", "3"]) == 0
    printed = capsys.readouterr().out
    assert "| knative-plain |" in printed
    found = json.loads(out.read_text())
    assert found["command"] == "sdzero simulate trace.csv --out sim.json --plot sim.png --seed 3"
    assert [s["name"] for s in found["summaries"]] == ["always-on", "knative-plain", "sdzero"]
    plain, ours = found["summaries"][1:]
    assert found["ratios"]["gpu_seconds_per_image: knative-plain / sdzero"] == pytest.approx(
        plain["gpu_seconds_per_image"] / ours["gpu_seconds_per_image"], rel=1e-3
    )
    assert ours["outcomes"]["cached"] + ours["outcomes"]["joined"] > 0
    assert plain["outcomes"]["cached"] == plain["outcomes"]["joined"] == 0
    assert plot.read_bytes()[:4] == b"\x89PNG"
    assert str(tmp_path) not in out.read_text()


def test_simulate_on_nodes_that_come_and_go(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    out = tmp_path / "sim.json"
    words = ["--config", "sdzero", "--nodes", "0,2", "--provision", "60,90", "--pull", "30", "--set", "window=45"]
    assert simulate([str(TRACE), *words, "--models", "separate", "--out", str(out)]) == 0
    (ours,) = json.loads(out.read_text())["summaries"]
    assert ours["node_seconds"] > ours["gpu_seconds"] / 2
    assert ours["settings"]["window"] == 45
    assert ours["latency"]["longest"] > 90


def test_plan_prints_the_front_and_writes_values(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--window", "6,60", "--scale-down-delay", "0", "--max-scale", "2", "--container-concurrency", "16"]
    words += ["--scale-to-zero-pod-retention-period", "0,60", "--timeout-seconds", "300"]
    assert plan(["--trace", str(TRACE), "--slo", "p95=6s", *words, "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    written = (tmp_path / "values.yaml").read_text()
    assert written in printed
    assert yaml.safe_load(written)["predictor"]["scaling"]["maxReplicas"] == 2
    found = json.loads((tmp_path / "plan.json").read_text())
    assert found["chosen"] in found["tried"]
    assert found["chosen"]["latency"]["p95"] <= 6
    assert (tmp_path / "pareto.png").read_bytes()[:4] == b"\x89PNG"


def test_an_engine_may_sleep_and_a_plan_begin_with_another_configuration(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "sim.json"
    assert simulate([str(TRACE), "--config", "sdzero,knative-plain", "--sleep-after", "0.5", "--out", str(out)]) == 0
    ours, plain = json.loads(out.read_text())["summaries"]
    assert (ours["engine_sleeps_after"], plain["engine_sleeps_after"]) == (0.5, None)
    assert ours["engine_seconds_per_image"] < ours["gpu_seconds_per_image"] / 2
    words = ["--window", "30", "--scale-down-delay", "0", "--max-scale", "2", "--container-concurrency", "16"]
    words += ["--scale-to-zero-pod-retention-period", "0", "--timeout-seconds", "300", "--min-scale", "0"]
    held = []
    for name in ("sdzero", "sdzero-ended-drains"):
        assert plan(["--trace", str(TRACE), "--slo", "p95=1m", "--config", name, *words, "--out", str(tmp_path)]) == 0
        held.append(json.loads((tmp_path / "plan.json").read_text())["chosen"]["gpu_seconds"])
    assert held[1] < held[0]
    capsys.readouterr()


def test_a_plan_that_cannot_be_kept_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--window", "30", "--scale-down-delay", "0", "--max-scale", "2", "--container-concurrency", "16"]
    words += ["--scale-to-zero-pod-retention-period", "0", "--timeout-seconds", "300", "--min-scale", "0"]
    assert plan(["--trace", str(TRACE), "--slo", "p95=100ms", *words]) == 1
    assert "nothing that was tried keeps p95=100ms" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["missing.csv"], "no such file"),
        ([str(TRACE), "--price", "free"], "allowed: h100-rented"),
        ([str(TRACE), "--set", "windows=6"], "no setting 'windows'"),
        ([str(TRACE), "--nodes", "2,1"], "max_nodes: got 1"),
    ],
)
def test_what_cannot_be_is_refused_in_words(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert simulate(words) == 2
    assert said in capsys.readouterr().err
