"""What a build stage drops, moves and settles, on files that are made here."""

import importlib.util
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from predictor.lab.images import finish


def write(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)


def test_tests_and_what_one_compiles_against_are_superfluous(tmp_path):
    kept = ["a/__init__.py", "a/core.so", "a/testing.py", "a/data.json", "a/latest/x.py", "a/py.typed"]
    dropped = [
        "a/tests/__init__.py",
        "a/tests/deep/data.json",
        "a/b/test/x.so",
        "a/x.pyi",
        "a/x.h",
        "a/x.pyx",
        "a/lib.a",
    ]
    write(tmp_path, *kept, *dropped)
    for path in list(finish.superfluous(tmp_path)):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()) == sorted(kept)


def test_a_name_is_found_and_says_what_became_of_it(tmp_path, monkeypatch):
    finish.leave_name(tmp_path, "frames")
    monkeypatch.syspath_prepend(tmp_path)
    assert importlib.util.find_spec("frames").origin == str(tmp_path / "frames" / "__init__.py")
    with pytest.raises(ImportError, match="frames's Python is not part of this image"):
        importlib.import_module("frames")


def test_a_module_that_is_there_is_never_replaced(tmp_path):
    write(tmp_path, "frames/__init__.py")
    with pytest.raises(FileExistsError):
        finish.leave_name(tmp_path, "frames")
    assert (tmp_path / "frames" / "__init__.py").read_text() == "frames/__init__.py"


def test_our_own_files_move_and_others_stay(tmp_path):
    home, layer = tmp_path / "home", tmp_path / "layer"
    packages = "lib/python3.12/site-packages"
    ours = ["bin/sdzero", f"{packages}/predictor/cli.py", f"{packages}/sdzero-0.1.0.dist-info/METADATA"]
    others = ["bin/python", f"{packages}/msgspec/__init__.py", f"{packages}/msgspec-0.22.0.dist-info/METADATA"]
    write(home, *ours, *others)
    finish.move(finish.own_files(home), home, layer)
    for root, names in ((layer, ours), (home, others)):
        assert sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()) == sorted(names)


def test_all_files_get_one_time_and_links_stay(tmp_path):
    write(tmp_path, "a/b/c.py")
    (tmp_path / "a" / "broken").symlink_to("nowhere")
    finish.settle([tmp_path])
    assert {path.lstat().st_mtime for path in [tmp_path, *tmp_path.rglob("*")]} == {finish.EPOCH}
    assert (tmp_path / "a" / "broken").readlink() == Path("nowhere")


@pytest.mark.skipif(shutil.which("strip") is None, reason="strip, of binutils, is not installed")
def test_stripped_modules_work_and_the_libraries_of_wheels_are_left_alone(tmp_path):
    installed = Path(sysconfig.get_path("platlib"))
    for name in ("msgspec", "numpy.libs"):
        shutil.copytree(installed / name, tmp_path / name)
    before = {path: path.read_bytes() for path in (tmp_path / "numpy.libs").iterdir()}
    modules = list(finish.extensions(tmp_path))
    assert [path.name.partition(".")[0] for path in modules] == ["_core"]
    finish.strip(modules)
    assert {path: path.read_bytes() for path in before} == before
    program = "import msgspec; print(msgspec.__file__, msgspec.json.encode({'a': 1}).decode())"
    run = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert run.stdout == f'{tmp_path}/msgspec/__init__.py {{"a":1}}\n'
