from pathlib import Path

import msgspec
import pytest

from predictor.lab.bench.cli import main
from predictor.lab.bench.readme import BEGIN, END, link, replaced, table
from predictor.lab.bench.report import read_all
from predictor.lab.bench.results import BundleFacts, Memory, Result, write

ROOT = Path(__file__).parents[3]


def test_the_committed_readme_has_the_figures_of_the_committed_results() -> None:
    page = ROOT / "README.md"
    text = page.read_text(encoding="utf-8")
    folder = ROOT / "docs" / "measurements"
    assert replaced(text, table(read_all(folder), link(page, folder))) == text


def test_every_figure_stands_in_a_row_with_its_medians_machine_and_file(result: Result) -> None:
    rows = table({"h100": result}, "docs/measurements").splitlines()
    tail = "sd15, NVIDIA H100 | [h100](docs/measurements/h100.json) |"
    assert rows[2].startswith("| `cold_page_cache_warm` | cold start to the first image")
    assert rows[2].endswith(f"| 5.00x | 10.00 → 2.00 s | {tail}")
    (throughput,) = [row for row in rows if row.startswith("| `throughput_16`")]
    assert throughput.endswith(f"| 16.00x | 1.00 → 16.00 images/s | {tail}")
    assert len(rows) == 2 + len(result.ratios)


def test_sizes_have_rows_too(result: Result) -> None:
    result.raw.memory = [
        Memory(side="plain", rss_peak=1, pss=2_000_000, gpu=None, gpu_from=None),
        Memory(side="lean", rss_peak=1, pss=3_000_000, gpu=4_000_000_000, gpu_from="processes"),
    ]
    result.raw.bundle = BundleFacts(name="b", bytes=2_100_000_000, bake_seconds=212.0)
    text = table({"h100": result}, "m")
    assert "| GPU memory after the load | | | sdzero, lean engine 4.00 GB |" in text
    assert "| plain diffusers handler 2.0 MB, sdzero, lean engine 3.0 MB |" in text
    assert "| bundle on disk | | | 2.10 GB |" in text
    assert "| bake | | | 212 s |" in text


def test_one_figure_of_two_devices_stands_together(result: Result) -> None:
    other = msgspec.structs.replace(result, machine={"gpu": "NVIDIA H200", "cpu_count": 16})
    rows = table({"a": other, "b": result}, "m").splitlines()[2:]
    assert ["H100" in rows[0], "H200" in rows[1]] == [True, True]
    assert rows[0].split("|")[1] == rows[1].split("|")[1]


def test_a_newer_result_of_the_same_device_takes_the_rows_that_it_has(result: Result) -> None:
    newer = msgspec.structs.replace(
        result,
        date="2026-02-01T00:00:00+00:00",
        raw=msgspec.structs.replace(result.raw, cold=[]),
    )
    rows = table({"a": newer, "b": result}, "m").splitlines()[2:]
    assert len(rows) == len(result.ratios)
    assert [row.split("|")[1].strip(" `") for row in rows if "[b]" in row] == [
        "cold_page_cache_warm",
        "cold_page_cache_dropped",
        "eager_cold_first_image",
    ]


def test_only_what_stands_between_the_marks_is_written_anew(result: Result, tmp_path: Path) -> None:
    write(tmp_path / "docs" / "measurements" / "h100.json", result)
    page = tmp_path / "README.md"
    page.write_text(f"# Title\n\n{BEGIN}\nold\n{END}\n\nrest\n")
    command = ["report", str(tmp_path / "docs" / "measurements"), "--out", str(tmp_path / "out"), "--readme", str(page)]
    assert main(command) == 0
    text = page.read_text()
    assert text.startswith(f"# Title\n\n{BEGIN}\n| figure |")
    assert text.endswith(f"(docs/measurements/h100.json) |\n{END}\n\nrest\n")
    assert main(command) == 0
    assert page.read_text() == text


@pytest.mark.parametrize("text", ["", BEGIN, END, f"{END}{BEGIN}", f"{BEGIN}{BEGIN}{END}"])
def test_a_page_without_a_place_for_the_table_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="bench: begin"):
        replaced(text, "")


def test_a_report_into_such_a_page_says_so(result: Result, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "in" / "h100.json", result)
    (tmp_path / "README.md").write_text("# Title\n")
    readme = ["--readme", str(tmp_path / "README.md")]
    assert main(["report", str(tmp_path / "in"), "--out", str(tmp_path / "out"), *readme]) == 2
    assert "bench: begin" in capsys.readouterr().err
