"""Noise on predictions: without any nothing moves, with more of it pictures move further, and seeds fix it."""

import json
from pathlib import Path

import pytest

from predictor.lab.sensitivity import main, measure

SHAPES = Path(__file__).parents[2] / "predictor" / "models" / "shapes"


@pytest.mark.parametrize(("noise", "least", "most"), [(0.0, 999, 999), (1e-4, 50, 998), (0.1, 5, 50)])
def test_pictures_move_as_far_as_the_noise_is_large(noise: float, least: float, most: float) -> None:
    report = measure(SHAPES, noise, draws=1, steps=2, threads=1)
    assert {one.sampler for one in report.moved} >= {"ddim", "lcm", "euler_a"}
    worst = min(min(one.psnr) for one in report.moved)
    assert least <= worst <= most


def test_the_report_says_what_moved(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "moved.json"
    assert main([str(SHAPES), "--draws", "2", "--steps", "2", "--json", str(file)]) == 0
    report = json.loads(file.read_text())
    assert (report["model"], report["noise"]) == ("shapes", 1e-3)
    assert all(len(one["psnr"]) == 2 for one in report["moved"])
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == len(report["moved"])
    assert [float(line.split("PSNR")[1].split()[0]) for line in printed] == sorted(
        round(min(one["psnr"]), 1) for one in report["moved"]
    )
