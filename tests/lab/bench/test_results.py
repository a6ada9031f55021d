import json
from pathlib import Path

import msgspec
import pytest

from predictor.core.timeline import Mark
from predictor.lab.bench.figures import NAMES, ratios
from predictor.lab.bench.results import Arrival, BundleFacts, LoadRun, Memory, Result, read, write

MEASUREMENTS = Path(__file__).parents[3] / "docs" / "measurements"


def test_latency_counts_from_the_intended_start_and_only_pictures_count() -> None:
    arrivals = [Arrival(0.0, 0.5, 1.0, 200), Arrival(1.0, 1.0, 4.0, 200), Arrival(2.0, 2.0, 2.1, 503)]
    run = LoadRun(side="eager", schedule="", requested_rate=1.0, arrivals=arrivals)
    assert run.latencies == [1.0, 3.0]
    assert run.achieved_rate == 0.5


@pytest.fixture
def full(result: Result) -> Result:
    """A result with every key that there is."""
    result.missing = ["cold_dropped: no"]
    result.raw.bundle = BundleFacts(name="sd15-bundle", bytes=2_100_000_000, bake_seconds=212.0)
    result.raw.memory = [Memory(side="lean", rss_peak=3_000_000_000, pss=1, gpu=4_000_000_000, gpu_from="freed")]
    result.raw.cold[1] = msgspec.structs.replace(result.raw.cold[1], marks=[Mark("server", "imports", 0.5)])
    return result


def test_a_file_reads_back_as_it_was_written(full: Result, tmp_path: Path) -> None:
    write(tmp_path / "new" / "run.json", full)
    assert read(tmp_path / "new" / "run.json") == full


def test_a_file_is_replaced_at_once(full: Result, tmp_path: Path) -> None:
    write(tmp_path / "run.json", full)
    with (tmp_path / "run.json").open("rb") as old:
        full.raw.cold.clear()
        write(tmp_path / "run.json", full)
        # Whoever had it open reads the old one to its end.
        assert len(msgspec.json.decode(old.read(), type=Result).raw.cold) == 18
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]


def test_a_file_has_the_documented_keys(full: Result, tmp_path: Path) -> None:
    write(tmp_path / "run.json", full)
    written = json.loads((tmp_path / "run.json").read_text())
    assert list(written) == ["command", "commit", "machine", "date", "ratios", "missing", "raw"]
    raw = written["raw"]
    assert list(raw) == ["workload", "bundle", "cold", "latency", "load", "memory"]
    described = (MEASUREMENTS / "README.md").read_text()
    inner = [raw["workload"], raw["bundle"], raw["cold"][1], raw["latency"][0], raw["load"][0], raw["memory"][0]]
    for key in (*written, *raw, *NAMES, *(key for entry in inner for key in entry)):
        assert f"`{key}`" in described, key


def test_a_file_that_is_no_result_is_refused_by_key(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text('{"command": "x", "commit": 3}')
    with pytest.raises(msgspec.ValidationError, match="commit"):
        read(tmp_path / "run.json")


def test_committed_results_follow_from_their_samples_and_name_no_folder() -> None:
    for path in MEASUREMENTS.glob("*.json"):
        result = read(path)
        assert result.ratios == ratios(result), path.name
        assert " /" not in result.command, path.name
        assert all("/" not in str(value) for value in result.machine.values()), path.name
