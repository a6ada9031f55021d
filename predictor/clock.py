"""One clock for every process of a pod: seconds since the machine booted, as the kernel counts them.

The kernel stamps a process's start on the same clock (`/proc/PID/stat`, field 22), so marks taken by the server and by
the engine, and the starts of both, can be subtracted from each other. `time.monotonic` would stop during suspend.
"""

import os
import time
from pathlib import Path


def now() -> float:
    """Seconds since boot (CLOCK_BOOTTIME)."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def process_start(pid: int | None = None) -> float:
    """When the kernel started the process, in seconds since boot; resolution is one clock tick, 10 ms as a rule."""
    stat = Path(f"/proc/{pid or 'self'}/stat").read_text()
    # The command name, field 2, may hold spaces and brackets: count from behind its closing one (proc(5)).
    ticks = int(stat.rpartition(")")[2].split()[19])
    return ticks / os.sysconf("SC_CLK_TCK")
