import os
import subprocess
import sys
from pathlib import Path

import pytest

from predictor import clock

TICK = 1 / os.sysconf("SC_CLK_TCK")


def test_it_is_the_kernels_time_since_boot() -> None:
    before = clock.now()
    uptime = float(Path("/proc/uptime").read_text().split()[0])
    assert before - 0.02 <= uptime <= clock.now() + 0.02  # /proc/uptime counts hundredths


def test_it_does_not_run_backwards() -> None:
    moments = [clock.now() for _ in range(1000)]
    assert moments == sorted(moments)


@pytest.mark.parametrize("name", ["python3", "a b", ") S 1 (", "((("])
def test_a_child_started_between_before_and_after(name: str, tmp_path: Path) -> None:
    program = tmp_path / name  # the kernel puts the file's name into /proc/PID/stat as it is
    program.symlink_to("/bin/cat")
    before = clock.now()
    with subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        after = clock.now()
        started = clock.process_start(child.pid)
        child.communicate(b"")
    assert before - TICK <= started <= after + TICK


def test_every_process_agrees_on_when_one_started() -> None:
    script = "from predictor import clock; print(clock.process_start())"
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as child:
        seen_from_here = clock.process_start(child.pid)
        said, _ = child.communicate()
    assert float(said) == seen_from_here


def test_this_process_started_in_the_past() -> None:
    assert 0 < clock.process_start() == clock.process_start(os.getpid()) <= clock.now()


def test_a_process_that_is_gone() -> None:
    with subprocess.Popen(["/bin/true"]) as child:
        child.wait()
    with pytest.raises(FileNotFoundError):
        clock.process_start(child.pid)
