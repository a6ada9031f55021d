from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from predictor.lab.bench.report import plot, tables, write_report
from predictor.lab.bench.results import Arrival, Raw, Result, write


def test_tables_state_both_sides_and_the_ratios(result: Result) -> None:
    text = tables("h100", result)
    assert "| `eager_warm_single_image` | 4.00x |" in text
    assert "| sdzero | 3 | 2.00 s | 5.00 s | 4.50 s | 9.00 s |" in text
    assert "| plain diffusers handler | 3 | 1.000 s | 1.200 s |" in text
    assert "| 4 | sdzero | 1.000 s | 4.00 |" in text
    assert "| burst of 16 | sdzero | at once | 8.00/s |" in text
    assert "NVIDIA H100" in text
    assert "sdzero bench run --model sd15" in text


def test_failed_requests_are_counted(result: Result) -> None:
    run = result.raw.load[0]
    run.arrivals[0] = Arrival(0.0, 0.0, 0.1, 429)
    assert "| 1 of 16 |" in tables("h100", result)


def test_facets_that_were_not_measured_have_no_table(result: Result) -> None:
    result.raw = Raw(workload=result.raw.workload, cold=result.raw.cold)
    text = tables("h100", result)
    assert "cold start" in text
    assert "open-loop" not in text


def test_a_report_is_made_from_the_files_alone(result: Result, tmp_path: Path) -> None:
    write(tmp_path / "in" / "h100.json", result)
    written = write_report(tmp_path / "in", tmp_path / "out")
    assert [path.name for path in written] == ["benchmarks.md", "h100.png"]
    assert "![h100](h100.png)" in written[0].read_text()
    with Image.open(BytesIO(written[1].read_bytes())) as picture:
        assert picture.width > 3 * picture.height
        assert len(picture.convert("RGB").getcolors(2**24)) > 10


def test_the_same_files_give_the_same_report(result: Result, tmp_path: Path) -> None:
    write(tmp_path / "in" / "h100.json", result)
    first, second = (write_report(tmp_path / "in", tmp_path / name) for name in ("one", "two"))
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def test_nothing_is_drawn_of_nothing(result: Result, tmp_path: Path) -> None:
    result.raw = Raw(workload=result.raw.workload)
    assert not plot(result, tmp_path / "empty.png")
    assert not (tmp_path / "empty.png").exists()


def test_a_folder_without_results_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no result files"):
        write_report(tmp_path, tmp_path)
