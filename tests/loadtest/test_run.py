"""Runs that go wrong are told as such, and what was measured is kept."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from loadtest import cli
from loadtest.deployments import Life, NotAtZero
from loadtest.generating import GeneratorFailed
from loadtest.job import TargetSpec
from loadtest.run import run, seconds_held
from loadtest.samples import outcomes
from loadtest.scenarios import SCENARIOS, changed

ROOT = Path(__file__).parents[2]
WARM = changed(SCENARIOS["warm"], ["arrivals.rate=10", "arrivals.seconds=1", "warm_up=0"])
ZERO = changed(SCENARIOS["cold-once"], ["cycles=3", "idle=0.1"])


class Stuck:
    """Comes to zero as often as it is told, and then no more."""

    def __init__(self, times: int) -> None:
        self.left = times

    def wait_for_zero(self, most: float) -> str:
        if not self.left:
            raise NotAtZero("demo/shapes: 2 replicas and pods are left after 900 s")
        self.left -= 1
        return "seen"

    def start_after(self, _: float, /) -> list:
        return []

    def lives(self) -> list[Life]:
        return [Life(since=0.0, until=10.0), Life(since=20.0)]


def test_cycles_that_were_measured_survive_one_that_cannot_begin(golden, tmp_path):
    targets = {"a": TargetSpec(url=golden().url, dialect="openai", model="golden")}
    done = run(ZERO, targets, tmp_path / "run", deployments={"a": Stuck(2)})
    assert len(outcomes(done.attempts)) == 2
    assert done.zeros == {"seen": 2}
    assert done.broken == "cycle 3 of 3 and those after it: demo/shapes: 2 replicas and pods are left after 900 s"
    assert done.broken in done.missing
    held = seconds_held(done, "a")
    assert held[0] == pytest.approx(10.0)
    with pytest.raises(NotAtZero):
        run(ZERO, targets, tmp_path / "none", deployments={"a": Stuck(0)})


def test_a_generator_that_fails_says_why(tmp_path):
    targets = {"a": TargetSpec(url="http://127.0.0.1:9", dialect="morse", model="golden")}
    with pytest.raises(GeneratorFailed, match=r"status 3: dialect: got 'morse'; allowed: openai"):
        run(WARM, targets, tmp_path / "run")


def test_whoever_is_not_there_is_lost_and_not_an_error(tmp_path):
    targets = {"a": TargetSpec(url="http://127.0.0.1:9", dialect="openai", model="golden", greet="/healthz")}
    done = run(WARM, targets, tmp_path / "run")
    assert {sample.outcome for sample in done.attempts} == {"lost"}
    assert all(re.search("refused", sample.error) for sample in done.attempts)


def test_a_generator_without_sockets_reports_no_losses(golden, tmp_path):
    server = golden(service=2.0)
    command = [sys.executable, "-m", "loadtest.cli", "warm", "--host", server.url, "--out", str(tmp_path / "run")]
    command += ["--set", "arrivals.rate=200", "--set", "arrivals.seconds=2", "--set", "warm_up=0"]
    limited = ["bash", "-c", f"ulimit -n 60; {shlex.join(command)}"]
    ended = subprocess.run(limited, capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert ended.returncode == cli.BROKEN
    assert "Too many open files; raise `ulimit -n` or lower the rate" in ended.stderr
    assert not (tmp_path / "run" / "summary.json").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["warm"], "--host"),
        (["warm", "--host", "localhost:8080"], "--host: got 'localhost:8080'; allowed: http://"),
        (["tea", "--host", "http://x"], "invalid choice: 'tea'"),
        (["warm", "--host", "http://x", "--require", "fast"], "requirement: got 'fast'"),
        (["warm", "--host", "http://x", "--set", "rate=2"], "rate=2: allowed: FIELD=VALUE with one of"),
        (["warm", "--host", "http://x", "--header", "Host"], "--header: got 'Host'; allowed: NAME: VALUE"),
    ],
)
def test_what_cannot_be_run_is_refused_in_words(arguments, words, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    assert ended.value.code == 2
    assert words in capsys.readouterr().err


def test_nothing_is_overwritten_and_prices_must_exist(tmp_path, capsys):
    (tmp_path / "report.html").write_text("an older one")
    assert cli.main(["warm", "--host", "http://x", "--out", str(tmp_path)]) == 2
    assert "allowed: a folder that is empty or not there" in capsys.readouterr().err
    assert cli.main(["warm", "--host", "http://x", "--out", str(tmp_path / "new"), "--price", "gold"]) == 2
    assert "--price: got 'gold'; allowed: h100-rented" in capsys.readouterr().err
    assert cli.main(["warm", "--host", "http://x", "--out", str(tmp_path / "new"), "--kubeconfig", os.devnull]) == 2
    assert "--service" in capsys.readouterr().err
