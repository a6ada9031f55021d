"""The facets against small servers of all four names; nothing here depends on how long something took."""

import math
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from predictor.clock import now
from predictor.lab.bench import facets, processes
from predictor.lab.bench.results import Raw, Workload
from predictor.lab.bench.session import Session, Unmeasured
from predictor.lab.bench.sides import Side
from tests.lab.bench.fakes import SERVER, program

WORK = Workload(model="tiny-sd15", steps=3, guidance_scale=7.5, height=128, width=128)


class Watched(Session):
    """A session that remembers what it said and, at each save, how many samples there were."""

    def __init__(self, sides: list[Side], deadline: float = math.inf) -> None:
        self.said: list[str] = []
        self.saved: list[int] = []
        super().__init__(sides, Path("model"), "cpu", Raw(workload=WORK), self.said.append, self._count, deadline)

    def _count(self) -> None:
        raw = self.raw
        self.saved.append(len(raw.cold) + len(raw.latency) + len(raw.load) + len(raw.memory))


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Callable[..., Watched]]:
    made: list[Watched] = []

    def make(*sides: Side, deadline: float = math.inf) -> Watched:
        made.append(Watched(list(sides), deadline))
        return made[-1]

    yield make
    for session in made:
        session.stop(*session.sides)


def test_cold_starts_take_turns_and_the_first_is_left_out(watched: Callable[..., Watched]) -> None:
    session = watched(program(SERVER, "plain"), program(SERVER, "lean"))
    facets.cold(session, trials=2, compile_trials=1)
    assert [(s.side, s.trial) for s in session.raw.cold] == [("lean", 1), ("plain", 1), ("plain", 2), ("lean", 2)]
    assert all(s.marks and s.page_cache == "warm" for s in session.raw.cold)
    assert session.saved == [0, 0, 1, 2, 3, 4]


def test_what_compiles_starts_last_and_with_an_empty_cache(watched: Callable[..., Watched], tmp_path: Path) -> None:
    compiled = tmp_path / "compiled"
    # Ends in failure if it finds what an earlier process has compiled.
    text = f"import pathlib; pathlib.Path({str(compiled)!r}).mkdir()\n" + SERVER
    side = program(text, "compile")
    side = Side(side.name, side.command, side.path, side.body, side.pictures, side.timeline, compiled=compiled)
    session = watched(side, program(SERVER, "lean"))
    facets.cold(session, trials=1, compile_trials=2)
    assert [(s.side, s.trial) for s in session.raw.cold] == [("lean", 1), ("compile", 1), ("compile", 2)]
    assert session.failures == {}


def test_servers_are_kept_from_facet_to_facet(watched: Callable[..., Watched]) -> None:
    session = watched(program(SERVER, "plain"), program(SERVER, "lean"))
    facets.single(session, repeats=2)
    pids = {name: running.process.pid for name, running in session.servers(session.sides, "").items()}
    facets.load(session, levels=(1, 16), bursts=1)
    facets.poisson(session, count=2, share=0.5)
    facets.batch(session, sizes=(2,), repeats=1)
    assert pids == {name: running.process.pid for name, running in session.servers(session.sides, "").items()}
    latency = [(s.side, s.facet, s.images) for s in session.raw.latency]
    assert latency[:4] == [("plain", "single", 1), ("lean", "single", 1), ("lean", "single", 1), ("plain", "single", 1)]
    assert latency[4:] == [("lean", "batch", 2), ("plain", "batch", 2)]
    assert [(r.side, r.schedule, len(r.latencies)) for r in session.raw.load[:4]] == [
        ("plain", "burst of 16", 16),
        ("lean", "burst of 16", 16),
        ("plain", "burst of 1", 1),
        ("lean", "burst of 1", 1),
    ]
    assert {run.schedule for run in session.raw.load[4:]} == {"Poisson at 50% of plain", "Poisson at 50% of lean"}
    # The file is written after every sample.
    assert set(session.saved) == set(range(15))


def test_memory_of_the_host_is_measured_on_running_servers(watched: Callable[..., Watched]) -> None:
    session = watched(program(SERVER, "plain"), program(SERVER, "lean"))
    facets.memory(session)
    assert [m.side for m in session.raw.memory] == ["plain", "lean"]
    assert all(m.rss_peak >= m.pss > 1_000_000 and m.gpu is None and m.gpu_from is None for m in session.raw.memory)


def test_memory_of_a_gpu_whose_driver_lists_nobody_is_what_comes_back(
    watched: Callable[..., Watched], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # 700 MiB are in use for as long as the server of this session lives.
    session = watched(program(SERVER, "lean"))
    session.device = "cuda"
    pid = session.servers(session.sides, "")["lean"].process.pid
    smi = tmp_path / "nvidia-smi"
    smi.write_text(
        f"#!/bin/sh\ncase $1 in --query-gpu=*) [ -d /proc/{pid} ] && echo 1000 || echo 300 ;; *) : ;; esac\n"
    )
    smi.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    facets.memory(session)
    (memory,) = session.raw.memory
    assert (memory.gpu, memory.gpu_from) == (700 * 2**20, "freed")
    assert processes.members(pid) == []


def test_files_are_dropped_before_each_start(watched: Callable[..., Watched], tmp_path: Path) -> None:
    # Most of the folder is a hole, so that what this machine holds in memory of Python is a small share of all.
    with (tmp_path / "weights").open("wb") as file:
        file.write(b"x" * 2**20)
        file.truncate(2**31)
    session = watched(program(SERVER, "plain"), program(SERVER, "lean"))
    before = set(session.servers(session.sides, "").values())
    facets.cold_dropped(session, trials=1, places=[[tmp_path]])
    assert [(s.side, s.trial, s.page_cache) for s in session.raw.cold] == [
        ("lean", 1, "dropped"),
        ("plain", 1, "dropped"),
    ]
    for sample in session.raw.cold:
        assert sample.resident_share is not None
        assert 0 <= sample.resident_share < 0.1
    # Running servers would hold what they have mapped.
    assert all(running.process.poll() is not None for running in before)


def test_a_file_system_that_drops_nothing_ends_the_facet(watched: Callable[..., Watched], tmp_path: Path) -> None:
    memory = Path("/dev/shm") / tmp_path.name
    if not memory.parent.is_dir():
        pytest.skip("no tmpfs here")
    memory.mkdir()
    try:
        (memory / "weights").write_bytes(bytes(2**20))
        session = watched(program(SERVER, "plain"))
        with pytest.raises(Unmeasured, match=r"ignores POSIX_FADV_DONTNEED.*: 100% of 0.00 GB stayed"):
            facets.cold_dropped(session, trials=1, places=[[tmp_path], [memory]])
    finally:
        (memory / "weights").unlink()
        memory.rmdir()
    assert session.raw.cold == []


def test_a_side_that_fails_is_left_out_and_the_others_go_on(watched: Callable[..., Watched]) -> None:
    session = watched(program("raise SystemExit('no compiler here')", "compile"), program(SERVER, "lean"))
    facets.cold(session, trials=1, compile_trials=1)
    facets.single(session, repeats=1)
    assert [s.side for s in session.raw.cold] == ["lean"]
    assert [s.side for s in session.raw.latency] == ["lean"]
    assert session.failures == {"compile": "cold 0/1 compile: compile: no picture from this process"}
    assert any("no compiler here" in line for line in session.said)


def test_nothing_begins_after_the_deadline(watched: Callable[..., Watched]) -> None:
    session = watched(program(SERVER, "plain"), deadline=now() - 1)
    with pytest.raises(Unmeasured, match="cold 0/1 plain and what follows: the time budget was spent"):
        facets.cold(session, trials=1, compile_trials=1)
    with pytest.raises(Unmeasured, match="load plain and what follows"):
        facets.load(session, levels=(1,), bursts=1)
    assert session.raw.load == []
