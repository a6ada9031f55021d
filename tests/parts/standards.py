"""The Pod Security Standards as the API server applies them: Kubernetes' own package, behind a small program in Go.

Run as a program, `python -m tests.parts.standards`, it builds it, which takes the better part of a minute.
"""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.parts.part import CACHE, program

SOURCE = Path(__file__).with_suffix("")
HOW = "make parts builds it, where Go is"


def objections(pods: Sequence[dict[str, Any]]) -> list[str]:
    """What the restricted level has against each pod; "" where it is admitted.

    Raises:
        Missing: it is not built.
    """
    run = subprocess.run(
        [program(_name(), HOW, str(CACHE / "bin"))], input=json.dumps(pods), capture_output=True, text=True, check=True
    )
    return list(json.loads(run.stdout))


def build() -> None:
    """Build it, from modules that Go verifies."""
    (CACHE / "bin").mkdir(parents=True, exist_ok=True)
    part = CACHE / "bin" / f"{_name()}.part"
    command = ["go", "build", "-trimpath", "-o", str(part), "."]
    subprocess.run(command, cwd=SOURCE, env=os.environ | {"CGO_ENABLED": "0"}, check=True)
    part.replace(CACHE / "bin" / _name())


def main() -> int:
    """Build it where it is not there; say why it cannot be."""
    if (CACHE / "bin" / _name()).exists():
        print("  pod security standards: found")
        return 0
    print("  building the pod security standards")
    try:
        build()
    except (subprocess.CalledProcessError, OSError) as error:
        print(f"  pod security standards: did not build, so pods are not checked against them: {error}")
    return 0


def _name() -> str:
    """Named after its source: a changed one is built anew."""
    sources = b"".join((SOURCE / name).read_bytes() for name in ("main.go", "go.sum"))
    return f"pod-security-standards-{hashlib.sha256(sources).hexdigest()[:12]}"


if __name__ == "__main__":
    sys.exit(main())
