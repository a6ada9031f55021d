import os
import subprocess
import sysconfig
from pathlib import Path

import pytest

from predictor.lab.bench.eviction import Eviction, evict, files_under, python_folders

SIZE = 8 * 2**20


def file_system(folder: Path) -> str:
    return subprocess.run(["stat", "-f", "-c", "%T", folder], capture_output=True, text=True, check=True).stdout.strip()


def test_what_was_just_written_leaves_the_page_cache(tmp_path: Path) -> None:
    if file_system(tmp_path) == "tmpfs":
        pytest.skip("a tmpfs is the page cache")
    file = tmp_path / "weights"
    file.write_bytes(os.urandom(SIZE))
    first, second = evict([file]), evict([file])
    assert (first.bytes, first.evicted, first.resident_share, first.worked) == (SIZE, SIZE, 0.0, True)
    assert second.evicted == 0
    file.read_bytes()
    assert evict([file]).evicted == SIZE


def test_a_file_system_that_ignores_the_request_is_found_out(tmp_path: Path) -> None:
    memory = Path("/dev/shm")
    if not memory.is_dir() or file_system(memory) != "tmpfs":
        pytest.skip("no tmpfs here")
    file = memory / f"sdzero-test-{os.getpid()}"
    try:
        file.write_bytes(bytes(SIZE))
        done = evict([file])
    finally:
        file.unlink()
    assert (done.evicted, done.resident_share, done.worked) == (0, 1.0, False)


def test_evictions_of_different_files_add_up(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(bytes(5000))
    assert evict(files_under([tmp_path])).bytes == 10_000
    added = Eviction(5000, 4096, 2, 1) + Eviction(5000, 0, 2, 2)
    assert added == Eviction(10_000, 4096, 4, 3)
    assert (added.resident_share, added.worked) == (0.75, False)


def test_a_file_that_has_gone_has_no_pages(tmp_path: Path) -> None:
    assert evict([tmp_path / "gone"]) == Eviction()


def test_a_file_behind_several_names_counts_once(tmp_path: Path) -> None:
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs" / "one").write_bytes(b"weights")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "weights").symlink_to(tmp_path / "blobs" / "one")
    (tmp_path / "model" / "hard").hardlink_to(tmp_path / "blobs" / "one")
    (tmp_path / "model" / "gone").symlink_to(tmp_path / "nowhere")
    assert len(files_under([tmp_path / "model"])) == 1
    assert len(files_under([tmp_path, tmp_path / "model" / "hard", tmp_path / "nowhere"])) == 1


def test_empty_files_have_no_pages(tmp_path: Path) -> None:
    (tmp_path / "__init__.py").touch()
    done = evict(files_under([tmp_path]))
    assert (done.bytes, done.resident_share) == (0, 0.0)


def test_python_is_the_standard_library_its_packages_and_this_one() -> None:
    folders = python_folders()
    assert Path(sysconfig.get_path("stdlib")) in folders
    assert Path(sysconfig.get_path("purelib")) in folders
    assert Path(__file__).parents[3] / "predictor" in folders
