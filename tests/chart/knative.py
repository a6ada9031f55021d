"""Knative's own configuration: which keys there are, and what they are by default."""

import functools

import yaml

from tests.parts.definitions import KNATIVE, folder


@functools.cache
def defaults(name: str) -> dict[str, str]:
    """Every key of one of its ConfigMaps, such as config-features, with its default.

    Raises:
        Missing: Knative's definitions were not fetched.
    """
    for file in (folder(KNATIVE) / "config/core/configmaps").glob("*.yaml"):
        made = yaml.safe_load(file.read_text(encoding="utf-8"))
        if made["metadata"]["name"] == name:
            # The keys stand in an example that is written as the data itself would be; some are commented out in it.
            example = made["data"]["_example"]
            commented = "\n".join(line.removeprefix("# ") for line in example.splitlines() if _setting(line))
            return {key: str(value) for key, value in yaml.safe_load(commented).items()}
    raise LookupError(f"{name}: Knative has no such ConfigMap")


def _setting(line: str) -> bool:
    key, colon, value = line.removeprefix("# ").partition(":")
    return bool(colon) and " " not in key and key == key.strip() and (value.startswith(" ") or not value)
