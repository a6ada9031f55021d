"""Where a measurement was made, without saying whose machine it is."""

import os
import platform
import subprocess
from importlib.metadata import version


def describe(device: str) -> dict[str, str | int]:
    """GPU, driver, library versions and cores; no host names, no paths."""
    found: dict[str, str | int] = {}
    if device == "cuda":
        found["gpu"], found["driver"] = _gpu()
    for library in ("torch", "diffusers", "transformers"):
        found[library] = version(library)
    found["python"] = platform.python_version()
    found["cpu_count"] = os.cpu_count() or 0
    return found


def commit() -> str | None:
    """The commit that is checked out, with `+` if files differ from it; None without git."""
    try:
        head = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True)  # noqa: S607
        if head.returncode:
            return None
        status = ["git", "status", "--porcelain"]
        changed = subprocess.run(status, capture_output=True, text=True, check=True).stdout  # noqa: S603
    except FileNotFoundError:
        return None
    return head.stdout.strip() + ("+" if changed.strip() else "")


def _gpu() -> tuple[str, str]:
    query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    line = subprocess.run(query, capture_output=True, text=True, check=True).stdout.splitlines()[0]  # noqa: S603
    name, _, driver = line.partition(", ")
    return name, driver
