"""Which of an image's files a server opens, by the distributions that brought them.

    strace -f -qq -e trace=open,openat,execve -o LOG COMMAND...
    python -m predictor.lab.images.opened LOG SITE_PACKAGES

prints a line for each distribution, the largest first: MB installed, MB of the files that were opened, their number,
and the name. Compiled Python counts as its source. Libraries that the dynamic linker maps are opened as well.
"""

import argparse
import csv
import os
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

# A call that succeeded, of any thread or process: strace(1), "-f" and "-o".
CALL = re.compile(r'(?:open|openat|execve)\((?:[\w-]+, )?"(?P<path>[^"]+)".* = \d+')
COMPILED = re.compile(r"__pycache__/([^/]+)\.cpython-\d+\.pyc$")


@dataclass(frozen=True)
class Share:
    """Of one distribution: bytes on disk, bytes of the files that were opened, and how many those are."""

    name: str
    installed: int
    opened: int
    files: int


def main(argv: list[str]) -> int:
    """Print the table; 0."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("log", type=Path)
    parser.add_argument("packages", type=Path)
    given = parser.parse_args(argv)
    with given.log.open(encoding="utf-8", errors="replace") as log:
        paths = set(opened(log))
    for share in sorted(shares(given.packages.resolve(), paths), key=lambda share: -share.installed):
        print(f"{share.installed / 1e6:8.2f} {share.opened / 1e6:8.2f} {share.files:5}  {share.name}")
    return 0


def opened(log: Iterable[str]) -> Iterator[str]:
    """The paths that calls in strace's log opened; a module's bytecode is given as its source."""
    for line in log:
        if found := CALL.search(line):
            yield os.path.normpath(COMPILED.sub(r"\1.py", found["path"]))  # links are not followed


def shares(packages: Path, paths: set[str]) -> Iterator[Share]:
    """What each distribution in `packages` has, and what of it is among `paths`; descriptions of itself aside."""
    for description in packages.glob("*.dist-info"):
        with (description / "RECORD").open(encoding="utf-8", newline="") as file:
            named = [packages / row[0] for row in csv.reader(file)]
        sizes = {
            str(path): path.stat().st_size
            for path in named
            if path.suffix != ".pyc" and description not in path.parents and path.is_file()
        }
        found = sizes.keys() & paths
        name = description.name.removesuffix(".dist-info").rpartition("-")[0]
        yield Share(name, sum(sizes.values()), sum(sizes[path] for path in found), len(found))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
