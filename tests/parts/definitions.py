"""What Knative and KServe define: their custom resources and default configuration, out of their Go modules.

Run as a program, `python -m tests.parts.definitions`, it fetches them with Go; nothing is compiled.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path

from tests.parts.part import CACHE, Missing

KNATIVE, KSERVE = "knative.dev/serving@v0.48.1", "github.com/kserve/kserve@v0.20.0"
HOW = f"make parts fetches it, where Go is: go mod download {KNATIVE} {KSERVE}"
# module → its files that the tests read
WANTED = {
    KNATIVE: ["config/core/300-resources/*.yaml", "config/core/configmaps/*.yaml"],
    KSERVE: ["config/crd/full/serving.kserve.io_*.yaml", "charts/kserve-resources/values.yaml"],
}


def folder(module: str) -> Path:
    """Where the wanted files of a module are kept, as they lie in it.

    Raises:
        Missing: they were not fetched.
    """
    if not (kept := _kept(module)).is_dir():
        raise Missing(f"{module}: not fetched; {HOW}")
    return kept


def fetch(module: str) -> None:
    """Download a module, which Go verifies against its checksum database, and keep what is wanted of it."""
    told = subprocess.run(["go", "mod", "download", "-json", module], capture_output=True, text=True, check=True)
    source, kept = Path(json.loads(told.stdout)["Dir"]), _kept(module)
    part = kept.with_name(f"{kept.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    for pattern in WANTED[module]:
        for file in source.glob(pattern):
            target = part / file.relative_to(source)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(file.read_bytes())
    part.replace(kept)


def main() -> int:
    """Fetch what is not there; say what cannot be."""
    for module in WANTED:
        if _kept(module).is_dir():
            print(f"  {module}: found")
            continue
        try:
            fetch(module)
        except (subprocess.CalledProcessError, OSError) as error:
            print(f"  {module}: not fetched, so manifests are not checked against it: {error}")
        else:
            print(f"  {module}: fetched")
    return 0


def _kept(module: str) -> Path:
    return CACHE / "definitions" / module.replace("/", "-")


if __name__ == "__main__":
    sys.exit(main())
