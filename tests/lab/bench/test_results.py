import json
from pathlib import Path

import msgspec
import pytest

from predictor.lab.bench.results import Arrival, LoadRun, Raw, Result, quantile, ratios, read, write

MEASUREMENTS = Path(__file__).parents[3] / "docs" / "measurements"


def test_ratios_compare_medians_and_above_one_is_better(result: Result) -> None:
    assert ratios(result.raw) == {
        "eager_cold_first_image": 2.0,
        "eager_warm_single_image": 4.0,
        "eager_throughput_16": 8.0,
    }


def test_a_facet_of_one_side_has_no_ratio(result: Result) -> None:
    raw = Raw(workload=result.raw.workload, cold=[s for s in result.raw.cold if s.side == "ours"])
    assert ratios(raw) == {}


def test_a_burst_that_lost_a_request_does_not_count_as_throughput(result: Result) -> None:
    for run in result.raw.load:
        run.arrivals[3] = Arrival(0.0, 0.0, 0.1, 503)
    assert "eager_throughput_16" not in ratios(result.raw)


def test_latency_counts_from_the_intended_start_and_only_pictures_count() -> None:
    arrivals = [Arrival(0.0, 0.5, 1.0, 200), Arrival(1.0, 1.0, 4.0, 200), Arrival(2.0, 2.0, 2.1, 503)]
    run = LoadRun(side="ours", schedule="", requested_rate=1.0, arrivals=arrivals)
    assert run.latencies == [1.0, 3.0]
    assert run.achieved_rate == 0.5


def test_quantiles_are_values_that_were_measured() -> None:
    values = [5.0, 1.0, 4.0, 2.0, 3.0]
    assert [quantile(values, share) for share in (0.0, 0.2, 0.5, 0.95, 1.0)] == [1.0, 1.0, 3.0, 5.0, 5.0]


def test_a_file_reads_back_as_it_was_written(result: Result, tmp_path: Path) -> None:
    write(tmp_path / "new" / "run.json", result)
    assert read(tmp_path / "new" / "run.json") == result


def test_a_file_has_the_documented_keys(result: Result, tmp_path: Path) -> None:
    write(tmp_path / "run.json", result)
    written = json.loads((tmp_path / "run.json").read_text())
    assert list(written) == ["command", "commit", "machine", "date", "ratios", "raw"]
    assert list(written["raw"]) == ["workload", "cold", "latency", "load"]
    described = (MEASUREMENTS / "README.md").read_text()
    for key in (*written, *written["raw"], *written["ratios"], *written["raw"]["cold"][0]):
        assert f"`{key}`" in described or key in ("side", "trial")


def test_a_file_that_is_no_result_is_refused_by_key(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text('{"command": "x", "commit": 3}')
    with pytest.raises(msgspec.ValidationError, match="commit"):
        read(tmp_path / "run.json")


def test_committed_results_follow_from_their_samples_and_name_no_folder() -> None:
    for path in MEASUREMENTS.glob("*.json"):
        result = read(path)
        assert result.ratios == ratios(result.raw), path.name
        assert " /" not in result.command, path.name
        assert all("/" not in str(value) for value in result.machine.values()), path.name
