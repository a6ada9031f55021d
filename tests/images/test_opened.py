"""The table of what a server opened, from a log of real calls."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from predictor.lab.images.opened import Share, main, opened, shares

LOG = """\
7 execve("/usr/bin/python", ["python"], 0x7ffd /* 20 vars */) = 0
7 openat(AT_FDCWD, "/p/a/__pycache__/x.cpython-312.pyc", O_RDONLY|O_CLOEXEC) = 3
7 openat(AT_FDCWD, "/p/a/missing.py", O_RDONLY) = -1 ENOENT (No such file or directory)
8 open("/p/a/../a.libs/lib.so", O_RDONLY) = 4
8 openat(AT_FDCWD, "/p/b.py", O_RDONLY <unfinished ...>
8 +++ exited with 0 +++
"""


def test_calls_that_succeeded_are_opened_files():
    assert list(opened(LOG.splitlines())) == ["/usr/bin/python", "/p/a/x.py", "/p/a.libs/lib.so"]


def installed(packages: Path) -> None:
    """A distribution of three files, 600 bytes, and another one."""
    for name, size in (("a/x.py", 100), ("a/y.py", 200), ("a.libs/lib.so", 300), ("b.py", 50)):
        (packages / name).parent.mkdir(parents=True, exist_ok=True)
        (packages / name).write_bytes(bytes(size))
    for name, files in (
        ("a-1.0", "a/x.py,,\na/y.py,,\na.libs/lib.so,,\na/gone.py,,\na-1.0.dist-info/RECORD,,\n"),
        ("b_c-2", "b.py,,"),
    ):
        (packages / f"{name}.dist-info").mkdir()
        (packages / f"{name}.dist-info" / "RECORD").write_text(files)


def test_what_each_distribution_has_and_what_of_it_is_opened(tmp_path):
    installed(tmp_path)
    found = shares(tmp_path, {f"{tmp_path}/a/x.py", f"{tmp_path}/a.libs/lib.so", "/elsewhere/b.py"})
    assert sorted(found, key=lambda share: share.name) == [Share("a", 600, 400, 2), Share("b_c", 50, 0, 0)]


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_a_real_log_makes_a_table(tmp_path, capsys):
    installed(tmp_path)
    log = tmp_path / "log"
    command = ["strace", "-f", "-qq", "-e", "trace=open,openat,execve", "-o", log, sys.executable, "-c", "import b"]
    traced = subprocess.run(command, env={"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True, check=False)
    if "ptrace" in traced.stderr:
        pytest.skip(f"this machine lets nobody trace: {traced.stderr.strip()}")
    main([str(log), str(tmp_path)])
    assert [line.split() for line in capsys.readouterr().out.splitlines()] == [
        ["0.00", "0.00", "0", "a"],
        ["0.00", "0.00", "1", "b_c"],
    ]
