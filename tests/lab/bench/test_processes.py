import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from predictor.lab.bench import processes
from tests.processes import wait_until

# A parent and a child in a process group of its own, as the predictor's engine is; the child holds 64 MB.
FAMILY = """
import subprocess, sys
child = subprocess.Popen(
    [sys.executable, "-c", "held = bytearray(b'x' * 64_000_000); print('up', flush=True); input()"],
    stdin=subprocess.PIPE, process_group=0,
)
child.wait()
"""


@pytest.fixture
def family() -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-c", FAMILY]
    with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as popen:
        assert popen.stdout is not None
        assert popen.stdout.readline() == b"up\n"
        yield popen
        for pid in processes.members(popen.pid):
            os.kill(pid, 9)


def test_a_session_has_all_its_processes_and_no_others(family: subprocess.Popen[bytes]) -> None:
    assert len(processes.members(family.pid)) == 2
    assert family.pid in processes.members(family.pid)
    assert os.getpid() not in processes.members(family.pid)


def test_who_has_ended_is_no_member(family: subprocess.Popen[bytes]) -> None:
    for pid in processes.members(family.pid):
        os.kill(pid, 9)
    wait_until(lambda: processes.members(family.pid) == [])  # though nobody has waited for the first one yet
    assert processes.host_memory([family.pid]) == (0, 0)


def test_memory_is_that_of_the_children_too(family: subprocess.Popen[bytes]) -> None:
    peak, share = processes.host_memory(processes.members(family.pid))
    assert peak > 64_000_000
    assert 64_000_000 < share <= peak


def test_mapped_files_are_found(family: subprocess.Popen[bytes]) -> None:
    mapped = processes.mapped_files([family.pid])
    assert Path(sys.executable).resolve() in mapped
    assert all(path.is_absolute() for path in mapped)


def test_the_drivers_list_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text(
        """#!/bin/sh
case $1 in
    --query-compute-apps=*) printf '11, 1000\\n12, 500\\n13, 7\\n14, [N/A]\\n' ;;
    --query-gpu=memory.used) printf '2000\\n30\\n' ;;
    *) exit 1 ;;
esac
"""
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert processes.gpu_memory([11, 12]) == 1500 * 2**20
    assert processes.gpu_memory([14]) is None  # listed without a number
    assert processes.gpu_memory([99]) is None
    assert processes.gpu_used() == 2030 * 2**20
