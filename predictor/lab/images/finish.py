"""The last step of a build stage: drop what serving never opens, list what is left, and give every file one time.

    python -m predictor.lab.images.finish libraries [--whole] [--name-only MODULE]
    python -m predictor.lab.images.finish bill
    python -m predictor.lab.images.finish code FOLDER

`libraries` works on the environment that sdzero lives in; `--whole` drops nothing, and of a MODULE that is not
installed a name is left for those who import it at their top and never use it. `bill` writes the bill of materials.
`code` moves sdzero's own files to FOLDER, so that they become a layer of their own.
"""

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePath

HOME = Path("/opt/sdzero")
LISTER = Path("/opt/cyclonedx/bin/cyclonedx-py")
BILL = Path("/usr/share/sdzero/sbom.cdx.json")
# Whoever builds the same files again gets the same layer: its digest depends on their times.
EPOCH = 315532800  # 1980-01-01, the first day that every archive format knows
NAME_ONLY = '''"""{module}'s Python is not part of this image: nothing that it serves needs it."""

raise ImportError(__doc__)
'''
TESTS = {"test", "tests"}
# For people who compile against a library, or for their editor.
DEVELOPMENT = {".a", ".c", ".cc", ".cpp", ".h", ".hpp", ".pxd", ".pxi", ".pyi", ".pyx"}


def main(argv: list[str]) -> int:
    """0; raises CalledProcessError if a program fails."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(required=True, dest="command")
    libraries = commands.add_parser("libraries")
    libraries.add_argument("--whole", action="store_true")
    libraries.add_argument("--name-only", metavar="MODULE", action="append", default=[])
    commands.add_parser("bill")
    commands.add_parser("code").add_argument("folder", type=Path)
    given = parser.parse_args(argv)
    if given.command == "code":
        move(own_files(HOME), HOME, given.folder / HOME.relative_to("/"))
        settle([given.folder])
        return 0
    if given.command == "bill":
        BILL.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run([LISTER, "environment", "--output-reproducible", "-o", BILL, HOME], check=True)  # noqa: S603
        settle([BILL.parent])
        return 0
    if not given.whole:
        for path in list(superfluous(site_packages(HOME))):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        strip(extensions(site_packages(HOME)))
    for module in given.name_only:
        leave_name(site_packages(HOME), module)
    settle([HOME])
    return 0


def site_packages(home: Path) -> Path:
    """The folder of the environment's packages."""
    (found,) = home.glob("lib/python3.*/site-packages")
    return found


def superfluous(packages: Path) -> Iterator[Path]:
    """Folders and files below `packages` that only their authors need: tests, and what one compiles against."""
    for folder, folders, files in os.walk(packages):
        here = Path(folder)
        for name in [name for name in folders if name in TESTS]:
            folders.remove(name)
            yield here / name
        yield from (here / name for name in files if PurePath(name).suffix in DEVELOPMENT)


def extensions(packages: Path) -> Iterator[Path]:
    """Compiled modules; not the libraries in folders of their own: whoever made the wheel has rewritten those once."""
    for path in packages.rglob("*.so"):
        if not path.relative_to(packages).parts[0].endswith(".libs"):
            yield path


def strip(libraries: Iterable[Path]) -> None:
    """Remove what only debuggers read. Raises CalledProcessError if one of `libraries` is none."""
    subprocess.run(["strip", "--strip-unneeded", *libraries], check=True)  # noqa: S603, S607


def leave_name(packages: Path, module: str) -> None:
    """A module that is found, and says what became of it to whoever executes it.

    Raises:
        FileExistsError: the real one is there.
    """
    place = packages / module / "__init__.py"
    place.parent.mkdir()
    place.write_text(NAME_ONLY.format(module=module), encoding="utf-8")


def own_files(home: Path) -> list[Path]:
    """What installing sdzero alone has put into `home`."""
    packages = site_packages(home)
    return [home / "bin" / "sdzero", packages / "predictor", *packages.glob("sdzero-*.dist-info")]


def move(paths: Iterable[Path], old: Path, new: Path) -> None:
    """Move each of `paths` to the same place below `new` that it has below `old`."""
    for path in paths:
        place = new / path.relative_to(old)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(path, place)


def settle(roots: Iterable[Path]) -> None:
    """Give everything below `roots` the same time."""
    for root in roots:
        for folder, _, files in os.walk(root):
            for path in (folder, *(os.path.join(folder, name) for name in files)):  # noqa: PTH118  # many thousands
                os.utime(path, (EPOCH, EPOCH), follow_symlinks=False)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
