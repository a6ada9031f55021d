"""The command that a result file says it came from."""

from collections.abc import Sequence
from pathlib import Path


def typed(program: str, words: Sequence[str]) -> str:
    """What was typed; files by name alone and addresses not at all, for results hold neither."""
    return " ".join([program, *map(_shown, words)])


def _shown(word: str) -> str:
    if "://" in word or ": " in word:
        return "…"
    if "/" not in word:
        return word
    key, equals, path = word.rpartition("=")
    return key + equals + Path(path).name
