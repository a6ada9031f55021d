from io import BytesIO
from pathlib import Path

import msgspec
import pytest
from PIL import Image

from predictor.core.timeline import START, Mark
from predictor.lab.bench.plots import plot, plot_waterfall
from predictor.lab.bench.report import write_report
from predictor.lab.bench.results import Arrival, BundleFacts, Memory, Raw, Result, write
from predictor.lab.bench.tables import tables


def test_tables_state_every_side_and_the_ratios(result: Result) -> None:
    text = tables("h100", result)
    assert "| `eager_warm_single_image` | 4.00x |" in text
    assert "| `cold_page_cache_dropped` | 5.00x |" in text
    assert "| sdzero, eager engine | 3 | 1.00 s | 5.00 s | 4.50 s | 9.00 s |" in text
    assert "| sdzero, lean engine | 3 | 4.00 s | 3.50 s | 8.00 s | 5.00 GB | 2.0% |" in text
    assert "| the same with torch.compile | 3 | 1.00 s | 90.00 s | 89.50 s | 94.00 s |" in text
    assert "| plain diffusers handler | 3 | 1.000 s | 1.200 s |" in text
    assert "| 4 | sdzero, eager engine | 1.000 s | 4.00 |" in text
    assert "| burst of 16 | sdzero, eager engine | at once | 8.00/s |" in text
    assert "NVIDIA H100" in text
    assert "sdzero bench run --model sd15" in text


def test_failed_requests_are_counted(result: Result) -> None:
    run = result.raw.load[1]
    run.arrivals[0] = Arrival(0.0, 0.0, 0.1, 429)
    assert "| 1 of 16 |" in tables("h100", result)


def test_facets_that_were_not_measured_have_no_table(result: Result) -> None:
    result.raw = Raw(workload=result.raw.workload, cold=result.raw.cold)
    text = tables("h100", result)
    assert "cold start" in text
    assert "open-loop" not in text


def test_memory_bundle_and_what_is_missing_are_told(result: Result) -> None:
    result.raw.memory = [Memory(side="lean", rss_peak=3_100_000_000, pss=950_000_000, gpu=4 * 10**9, gpu_from="freed")]
    result.raw.bundle = BundleFacts(name="sd15", bytes=2_100_000_000, bake_seconds=None)
    result.missing = ["batch lean and what follows: the time budget was spent"]
    text = tables("h100", result)
    assert "| sdzero, lean engine | 3.10 GB | 950.0 MB | 4.00 GB | freed |" in text
    assert "| sd15 | 2.10 GB |  |" in text
    assert "\n- batch lean and what follows: the time budget was spent\n" in text


def test_a_report_is_made_from_the_files_alone(result: Result, tmp_path: Path) -> None:
    write(tmp_path / "in" / "h100.json", result)
    written = write_report(tmp_path / "in", tmp_path / "out")
    assert [path.name for path in written] == ["benchmarks.md", "h100.png"]
    assert "![h100](h100.png)" in written[0].read_text()
    with Image.open(BytesIO(written[1].read_bytes())) as picture:
        assert picture.width > picture.height
        assert len(picture.convert("RGB").getcolors(2**24)) > 10


def test_the_same_files_give_the_same_report(result: Result, tmp_path: Path) -> None:
    write(tmp_path / "in" / "h100.json", result)
    first, second = (write_report(tmp_path / "in", tmp_path / name) for name in ("one", "two"))
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def test_a_lean_cold_start_is_drawn_phase_by_phase(result: Result, tmp_path: Path) -> None:
    marks = [Mark("server", START, 0.0), Mark("server", "imports", 0.9), Mark("engine", START, 0.1)]
    starts = [s for s in result.raw.cold if (s.side, s.page_cache) == ("lean", "warm")]
    result.raw.cold = [
        msgspec.structs.replace(start, marks=[*marks, Mark("engine", "weights_read", start.first_image / 2)])
        for start in starts
    ]
    write(tmp_path / "in" / "h100.json", result)
    written = write_report(tmp_path / "in", tmp_path / "out")
    assert [path.name for path in written] == ["benchmarks.md", "h100.png", "h100-waterfall.png"]
    assert "![h100-waterfall](h100-waterfall.png)" in written[0].read_text()
    with Image.open(tmp_path / "out" / "h100-waterfall.png") as picture:
        colours = {colour for _, colour in picture.convert("RGB").getcolors(2**24)}
    assert {(0x00, 0x9E, 0x73), (0x00, 0x72, 0xB2)} <= colours  # a bar of the server, a bar of the engine


def test_nothing_is_drawn_of_nothing(result: Result, tmp_path: Path) -> None:
    result.raw = Raw(workload=result.raw.workload)
    assert not plot(result, tmp_path / "empty.png")
    assert not plot_waterfall(result, tmp_path / "empty.png")
    assert not (tmp_path / "empty.png").exists()


def test_a_folder_without_results_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no result files"):
        write_report(tmp_path, tmp_path)
