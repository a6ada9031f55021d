"""What this process may take of its machine: bytes of memory, and cores. Imports nothing slow."""

import math
import os
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")


def host_memory() -> int:
    """Bytes that this process may still allocate: what the machine can give, or what the container's limit leaves."""
    return min(_available(), _cgroup_room())


def cores() -> int:
    """Cores that this process may use: those it is bound to, or fewer where a container's limit says so (cgroup v2)."""
    bound = len(os.sched_getaffinity(0))
    try:
        quota, period = (CGROUP / "cpu.max").read_text(encoding="ascii").split()
        return max(1, min(bound, math.ceil(int(quota) / int(period))))
    except (OSError, ValueError):  # no cgroup v2, or no limit ("max")
        return bound


def _available() -> int:
    """MemAvailable of proc(5), which counts the page cache that can be dropped."""
    for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("/proc/meminfo has no MemAvailable")


def _cgroup_room() -> int:
    """What the container's limit leaves (cgroup v2), or more than any machine has where there is none."""
    try:
        limit = int((CGROUP / "memory.max").read_text(encoding="ascii"))
        return limit - int((CGROUP / "memory.current").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return 2**62
