"""The container's limits count, not the machine's size."""

import os
from pathlib import Path

import pytest

from predictor.engine import resources


@pytest.mark.parametrize(
    ("quota", "expected"),
    [("150000 100000", 2), ("10000 100000", 1), ("max 100000", None), (None, None), ("99900000 100000", None)],
)
def test_cores_follow_the_containers_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quota: str | None, expected: int | None
) -> None:
    monkeypatch.setattr(resources, "CGROUP", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    if quota:
        (tmp_path / "cpu.max").write_text(quota + "\n")
    assert resources.cores() == (expected or 64)


@pytest.mark.parametrize(("limit", "used", "expected"), [("1000000", "400000", 600_000), ("max", "400000", None)])
def test_memory_follows_the_containers_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, used: str, expected: int | None
) -> None:
    monkeypatch.setattr(resources, "CGROUP", tmp_path)
    (tmp_path / "memory.max").write_text(limit + "\n")
    (tmp_path / "memory.current").write_text(used + "\n")
    free = resources.host_memory()
    assert free == expected if expected else free > 2**20
