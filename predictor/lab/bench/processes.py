"""The processes of a side and the memory that they hold, as /proc and nvidia-smi tell it.

Each side is spawned as the leader of a session of its own (setsid(2)). None of its processes leaves that session; the
predictor's engine has a process group of its own, and orphans have another parent.
"""

import subprocess
from pathlib import Path
from typing import Final

_MIB: Final = 2**20


def members(session: int) -> list[int]:
    """Ids of the session's processes that still run; zombies hold nothing but their number."""
    found = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdecimal():
            continue
        # Behind the command's closing bracket: state, parent, group, session (proc(5)).
        fields = _text(folder / "stat").rpartition(")")[2].split()
        if fields and int(fields[3]) == session and fields[0] not in "ZX":
            found.append(int(folder.name))
    return sorted(found)


def mapped_files(pids: list[int]) -> set[Path]:
    """The files that these processes have mapped: interpreter, libraries, weights (proc(5), maps)."""
    found = set()
    for pid in pids:
        for line in _text(Path(f"/proc/{pid}/maps")).splitlines():
            _, slash, name = line.partition("/")
            if slash:
                found.add(Path(slash + name))
    return found


def host_memory(pids: list[int]) -> tuple[int, int]:
    """Bytes: the sum of each process's peak RSS (VmHWM), and of their PSS now (proc(5), smaps_rollup).

    The peaks need not have been at one moment, and count shared pages in each process, so their sum is an upper bound.
    """
    peak = sum(_kilobytes(Path(f"/proc/{pid}/status"), "VmHWM:") for pid in pids)
    share = sum(_kilobytes(Path(f"/proc/{pid}/smaps_rollup"), "Pss:") for pid in pids)
    return 1024 * peak, 1024 * share


def gpu_memory(pids: list[int]) -> int | None:
    """Bytes that the driver lists for these processes; None if it lists none of them, as within many containers."""
    rows = [row.split(", ") for row in _nvidia_smi("--query-compute-apps=pid,used_gpu_memory")]
    found = [int(used) for pid, used in rows if int(pid) in pids and used.isdecimal()]
    return sum(found) * _MIB if found else None


def gpu_used() -> int:
    """Bytes in use on all GPUs, by whomever."""
    return sum(int(row) for row in _nvidia_smi("--query-gpu=memory.used")) * _MIB


def _nvidia_smi(query: str) -> list[str]:
    command = ["nvidia-smi", query, "--format=csv,noheader,nounits"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()  # noqa: S603


def _kilobytes(path: Path, key: str) -> int:
    for line in _text(path).splitlines():
        if line.startswith(key):
            return int(line.split()[1])
    return 0  # a process that has ended holds no memory


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""  # the process ended meanwhile
