"""What native code writes to descriptor 2 reaches both its reader and where it was going."""

import os
from contextlib import closing

import pytest

from predictor.engine.baked.stderr import KEPT, StderrTail


def test_text_is_taken_once_and_in_full(capfd: pytest.CaptureFixture[str]) -> None:
    with closing(StderrTail()) as tail:
        os.write(2, b"Error: CUDA out of memory.\nframe #0\nunfinished")
        assert tail.take() == "Error: CUDA out of memory.\nframe #0\nunfinished"
        assert tail.take() == ""
    assert capfd.readouterr().err == "Error: CUDA out of memory.\nframe #0\nunfinished\n"


def test_only_the_end_is_kept(capfd: pytest.CaptureFixture[str]) -> None:
    lines = b"".join(b"line %d\n" % number for number in range(10_000))
    with closing(StderrTail()) as tail:
        os.write(2, lines)
        taken = tail.take()
    assert len(taken) <= KEPT
    assert taken.endswith("line 9999")
    assert capfd.readouterr().err == lines.decode()


def test_closing_gives_the_descriptor_back(capfd: pytest.CaptureFixture[str]) -> None:
    tail = StderrTail()
    os.write(2, b"before")
    tail.close()
    os.write(2, b" after")
    assert capfd.readouterr().err == "before after"
