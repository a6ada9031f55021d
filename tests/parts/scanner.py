"""Checkov, a scanner of manifests that others know, in an environment of its own: it pins other versions than ours.

Run as a program, `python -m tests.parts.scanner`, it installs it.
"""

import json
import os
import shutil
import subprocess
import sys
import venv
from dataclasses import dataclass
from pathlib import Path

from tests.parts.part import CACHE, Missing

CHECKOV = "checkov==3.3.30"
HOW = "make parts installs it"
FOLDER = CACHE / CHECKOV.replace("==", "-")


@dataclass(frozen=True, order=True)
class Finding:
    """A check of Checkov's that an object does not pass."""

    object: str  # Kind.namespace.name
    check: str  # CKV_K8S_16
    text: str


def scan(folder: Path) -> tuple[int, list[Finding]]:
    """How many checks the manifests in a folder passed, and which they failed.

    Raises:
        Missing: Checkov is not installed.
    """
    if not FOLDER.is_dir():
        raise Missing(f"{CHECKOV}: not installed; {HOW}")
    asked = ["--directory", str(folder), "--framework", "kubernetes", "--skip-download", "--quiet", "--output", "json"]
    # Its script names the folder it was made in, which is not this one.
    run = subprocess.run(
        [FOLDER / "bin" / "python", "-m", "checkov.main", *asked], capture_output=True, text=True, cwd=folder
    )
    assert run.returncode in (0, 1), run.stderr
    told = json.loads(run.stdout)
    if "results" not in told:  # nothing that it knows: only a summary
        return 0, []
    failed = [Finding(one["resource"], one["check_id"], one["check_name"]) for one in told["results"]["failed_checks"]]
    return told["summary"]["passed"], sorted(failed)


def install() -> None:
    """Make its environment, whole or not at all."""
    part = FOLDER.with_name(f"{FOLDER.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    uv = shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    venv.create(part, with_pip=uv is None)
    python = part / "bin" / "python"
    pip = [uv, "pip", "install", "--python", python] if uv else [python, "-m", "pip", "install"]
    subprocess.run([*pip, "--quiet", CHECKOV], check=True)
    part.replace(FOLDER)


def main() -> int:
    """Install it where it is not there; say why it cannot be."""
    if FOLDER.is_dir():
        print(f"  {CHECKOV}: found")
        return 0
    try:
        install()
    except (subprocess.CalledProcessError, OSError) as error:
        print(f"  {CHECKOV}: not installed, so pods are checked by our own rules alone: {error}")
        return 0
    print(f"  {CHECKOV}: installed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
