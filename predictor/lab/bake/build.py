"""All packages of a bundle, compiled side by side; those that the cache has are taken from there."""

import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path

import msgspec

from predictor.engine.baked.manifest import Machine
from predictor.engine.resources import cores, host_memory
from predictor.lab.bake import cache, children, inductor
from predictor.lab.bake.cache import Cache, Entry
from predictor.lab.bake.plan import Job
from predictor.lab.bake.progress import Board

HERE = Path(__file__).parent
# Our own files that decide what code comes out.
SOURCES = (
    *(HERE / name for name in ("parts.py", "preview.py", "compile.py", "elf.py")),
    HERE.parents[1] / "engine" / "clip.py",
    HERE.parents[1] / "engine" / "samplers.py",
)
JOB_MEMORY = 4 * 2**30  # bytes: torch, a model of SD 1.5's size, and a C++ compiler at work on it
REDRAW = 0.5  # seconds


def parallel_jobs() -> int:
    """How many packages this machine compiles at once: a core and some memory for each."""
    return max(1, min(cores(), host_memory() // JOB_MEMORY))


def keys(jobs: Sequence[Job], machine: Machine) -> dict[str, str]:
    """Each job's place in the cache, by its name."""
    outside = inductor.from_outside(os.environ)
    return {
        job.name: cache.key_of(job, machine, [*inductor.options(job.device, job.autotune).items(), *outside], SOURCES)
        for job in jobs
    }


def compile_all(
    jobs: Sequence[Job], machine: Machine, store: Cache, board: Board, parallel: int, scratch: Path
) -> dict[str, Entry]:
    """An entry of the cache per job, by its name. Raises BakeError with the first package that failed."""
    made: dict[str, Entry] = {}
    missing: list[Job] = []
    places = keys(jobs, machine)
    for job in jobs:
        if entry := store.find(places[job.name]):
            made[job.name] = entry
            board.tell(job.name, "reused")
        else:
            missing.append(job)
    if missing:
        store.path.mkdir(parents=True, exist_ok=True)
        environ = inductor.compilers_environment(os.environ, str(scratch / "inductor"))
        with ThreadPoolExecutor(parallel) as pool, children.Children() as running:

            def start(job: Job) -> Callable[[], tuple[str, Entry]]:
                return lambda: (job.name, _compile(job, store, places[job.name], running, environ, board))

            futures = [pool.submit(start(job)) for job in missing]
            made.update(_results(futures, board))
    return {job.name: made[job.name] for job in jobs}


def _results(futures: list["Future[tuple[str, Entry]]"], board: Board) -> dict[str, Entry]:
    left = set(futures)
    made: dict[str, Entry] = {}
    try:
        while left:
            done, left = wait(left, REDRAW, FIRST_COMPLETED)
            made.update(future.result() for future in done)
            board.draw()
    except BaseException:
        for future in left:
            future.cancel()
        raise
    return made


def _compile(
    job: Job, store: Cache, key: str, running: children.Children, environ: Mapping[str, str], board: Board
) -> Entry:
    # Beside its place, so that it can be renamed.
    folder = Path(tempfile.mkdtemp(prefix=".making-", dir=store.path))
    try:
        told = folder / "job.json"
        told.write_bytes(msgspec.json.encode(job))
        board.tell(job.name, "starting")
        running.run(
            "predictor.lab.bake.compile",
            [str(told), str(folder)],
            environ,
            lambda stage: board.tell(job.name, stage),
        )
        entry = store.keep(key, folder)
    except children.ChildFailed as error:
        board.tell(job.name, "stopped" if running.closed else "failed")
        raise children.BakeError(f"package {job.name}: its compilation {error}") from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    size = sum(file.stat().st_size for file in entry.code.iterdir())
    board.tell(job.name, "done", f"{size / 1e6:.1f} MB")
    return entry
