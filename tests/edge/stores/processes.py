"""Other processes that use a test's database."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[3]


@contextmanager
def another_process(program: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A Python that runs `program`, in which `url` is the first argument and `tell(words)` speaks to the test."""
    prelude = "import asyncio, sys\nurl = sys.argv[1]\ndef tell(*words): print(*words, flush=True)\n"
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", prelude + program, *arguments],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def told(process: subprocess.Popen[str]) -> str:
    return process.stdout.readline().strip()
