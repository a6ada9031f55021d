import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from predictor.lab.bake.children import ChildFailed, Children

Program = Callable[[str], dict[str, str]]


@pytest.fixture
def program(tmp_path: Path) -> Program:
    """Makes the module `child` of a text; returns the environment in which it is found."""

    def write(text: str) -> dict[str, str]:
        (tmp_path / "child.py").write_text(text)
        return {**os.environ, "PYTHONPATH": str(tmp_path)}

    return write


def test_stages_are_told_as_they_come_and_the_rest_is_the_log(program: Program):
    told: list[str] = []
    environ = program("import sys; print('\\x1eone'); print('chatter'); print('\\x1e' + sys.argv[1])")
    with Children() as children:
        children.run("child", ["two"], environ, told.append)
    assert told == ["one", "two"]


def test_a_child_that_fails_leaves_its_last_words(program: Program):
    environ = program("for n in range(100): print('line', n)\nraise SystemExit('that is why')")
    with Children() as children, pytest.raises(ChildFailed) as failed:
        children.run("child", [], environ, lambda stage: None)
    assert "ended with status 1" in str(failed.value)
    assert "that is why" in str(failed.value)
    assert "line 99" in str(failed.value)
    assert "line 12\n" not in str(failed.value)


def test_a_crash_is_named(program: Program):
    environ = program("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    with Children() as children, pytest.raises(ChildFailed, match=r"ended with signal 11 \(Segmentation fault\)"):
        children.run("child", [], environ, lambda stage: None)


def test_nothing_outlives_the_block(program: Program, eventually: Callable[..., None]):
    # The child starts one of its own, as a compiler would be, and both would go on for ever.
    environ = program(
        "import subprocess, sys, time\n"
        "other = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(1000)'])\n"
        "print('\\x1e' + str(other.pid), flush=True)\n"
        "time.sleep(1000)"
    )
    told: list[str] = []
    failures: list[ChildFailed] = []
    started = threading.Event()

    def on_stage(stage: str) -> None:
        told.append(stage)
        started.set()

    def run() -> None:
        try:
            children.run("child", [], environ, on_stage)
        except ChildFailed as error:
            failures.append(error)

    with Children() as children:
        thread = threading.Thread(target=run)
        thread.start()
        assert started.wait(60)
    thread.join(60)
    assert "signal 9" in str(failures[0])
    assert children.closed
    eventually(lambda: not alive(int(told[0])))


def alive(pid: int) -> bool:
    """Whether it runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False
