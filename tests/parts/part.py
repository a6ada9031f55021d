"""What the real parts have in common."""

import shutil
from pathlib import Path

CACHE = Path.home() / ".cache" / "sdzero-tests"  # what `make parts` made itself


class Missing(Exception):
    """A program is not installed; the message says how to get it."""


def program(name: str, how: str, *places: str) -> str:
    """The path of an installed program.

    Raises:
        Missing: it is neither on the PATH nor in `places`.
    """
    for candidate in (name, *(f"{place}/{name}" for place in places)):
        if found := shutil.which(candidate):
            return found
    raise Missing(f"{name}: not installed; {how}")
