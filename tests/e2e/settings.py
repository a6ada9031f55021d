"""What a run of the suite may be told, by environment variables whose names begin with E2E_."""

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path

from predictor import __version__

PREFIX = "E2E_"
ROOT = Path(__file__).parents[2]


@dataclasses.dataclass(frozen=True)
class Settings:
    """How to reach the cluster's services, what to install, how often to measure.

    `docs/e2e.md` has a table of them. A field `cycles` is read from E2E_CYCLES.
    """

    ingress: str = ""  # http://ADDRESS:PORT of the ingress; services are then told apart by the Host header. "": by DNS
    edge_image: str = f"sdzero/edge:{__version__}"
    predictor_image: str = f"sdzero/predictor:{__version__}-cpu"
    naive_image: str = f"sdzero/predictor-eager:{__version__}-cpu"
    values: str = ""  # path of a values file that is added to every release
    cycles: int = 3  # rounds of 0 → 1 → 0; 20 are recorded
    results: str = str(ROOT / "out" / "e2e")  # folder of the JSON files
    host_volumes: str = ""  # folder of the node for volumes of tests, where the cluster provides none itself
    gpu: str = "nvidia.com/gpu"  # an extended resource of which some node has few
    keep: bool = False  # leave the namespaces behind, to look at them


def read(environ: Mapping[str, str] = os.environ) -> Settings:
    """Settings from the environment.

    Raises:
        ValueError: an E2E_ variable that does not exist, or a value that is none.
    """
    kinds = {field.name: field.type for field in dataclasses.fields(Settings)}
    given = {name.removeprefix(PREFIX).lower(): text for name, text in environ.items() if name.startswith(PREFIX)}
    if unknown := sorted(given.keys() - kinds.keys()):
        allowed = ", ".join(PREFIX + name.upper() for name in kinds)
        raise ValueError(f"{PREFIX}{unknown[0].upper()} is no setting; there are {allowed}")
    return Settings(**{name: _parsed(name, text, kinds[name]) for name, text in given.items()})


def _parsed(name: str, text: str, kind: object) -> object:
    if kind is bool:
        if text not in ("true", "false"):
            raise ValueError(f"{PREFIX}{name.upper()} is {text!r}; allowed: true, false")
        return text == "true"
    if kind is int:
        if not text.isdecimal() or not int(text):
            raise ValueError(f"{PREFIX}{name.upper()} is {text!r}; allowed: a whole number from 1")
        return int(text)
    return text
