"""What is measured, the most important first; the sides take turns in each facet."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from predictor.lab.bench import arrivals, eviction, processes
from predictor.lab.bench.figures import CONCURRENT, burst_rates
from predictor.lab.bench.results import Latency, LoadRun, Memory
from predictor.lab.bench.running import Running, drive, request
from predictor.lab.bench.session import Session, Unmeasured, dropped
from predictor.lab.bench.sides import Side


def cold(session: Session, trials: int, compile_trials: int) -> None:
    """Start each side `trials` times. Trial 0 fills the page cache and the bytecode files, and is left out.

    Sides that compile need minutes each time; they start `compile_trials` times, after the others, from an empty cache.
    """
    _starts(session, [side for side in session.sides if not side.compiled], 0, trials)
    _starts(session, [side for side in session.sides if side.compiled], 1, compile_trials)


def single(session: Session, repeats: int) -> None:
    """One picture at a time."""
    servers = session.servers(session.sides, "single")
    for repeat in range(repeats):
        what = f"single {repeat + 1}/{repeats}"
        for side in session.turn(session.sides, repeat, what):
            with session.sample(side, what):
                seconds = request(servers[side.name], session.raw.workload, repeat, 1)
                session.raw.latency.append(Latency(side=side.name, facet="single", images=1, seconds=seconds))
                session.say(f"{what} {side.name}: {seconds:.3f} s")


def load(session: Session, levels: Sequence[int], bursts: int) -> None:
    """Bursts of each number in `levels`: that many requests at one moment."""
    servers = session.servers(session.sides, "load")
    # 16 first, for the figures are made of it.
    ordered = sorted(levels, key=lambda count: (count != CONCURRENT, count))
    for count in ordered:
        for side in session.turn([side for side in session.sides if side.batches], 0, "load"):
            drive(servers[side.name], session.raw.workload, arrivals.burst(count), first_seed=0)
    for number in range(bursts):
        for count in ordered:
            name = f"burst of {count}"
            for side in session.turn(session.sides, number, f"load: {name} {number + 1}/{bursts}"):
                with session.sample(side, name):
                    run = _driven(servers[side.name], session, name, None, arrivals.burst(count))
                    session.say(f"{name} {number + 1}/{bursts} {side.name}: {run.achieved_rate:.2f} pictures/s")


def memory(session: Session) -> None:
    """What each server's processes hold now; one whose processes the driver does not list is stopped to see it."""
    servers = session.servers(session.sides, "memory")
    for side in session.turn(session.sides, 0, "memory"):
        with session.sample(side, "memory"):
            pids = processes.members(servers[side.name].process.pid)
            rss_peak, pss = processes.host_memory(pids)
            gpu, source = _gpu_memory(session, side, pids) if session.device == "cuda" else (None, None)
            session.raw.memory.append(Memory(side=side.name, rss_peak=rss_peak, pss=pss, gpu=gpu, gpu_from=source))
            session.say(f"memory {side.name}: host {pss / 1e9:.2f} GB{f', GPU {gpu / 1e9:.2f} GB' if gpu else ''}")


def cold_dropped(session: Session, trials: int, places: Sequence[Sequence[Path]]) -> None:
    """Cold starts with an empty page cache: before each, drop what is in `places` and whatever the sides had mapped.

    Args:
        session: the run.
        trials: cold starts of each side.
        places: groups of folders; each group may be of another file system.

    Raises:
        Unmeasured: too many pages of a group stay where they are.
    """
    # Pages that a running server has mapped cannot be dropped.
    session.stop(*session.sides)
    quick = [side for side in session.sides if not side.compiled]
    # Trial 0 makes bytecode files and tells what is mapped, unless earlier starts have.
    for trial in range(1 if session.mapped else 0, trials + 1):
        what = f"cold_dropped {trial}/{trials}"
        groups = [eviction.files_under(group) for group in places]
        others = set(eviction.files_under(session.mapped)).difference(*groups)
        for side in session.turn(quick, trial, what):
            # Of what is mapped besides, this process may hold much itself: its own interpreter.
            done = eviction.evict(others)
            for files in groups:
                part = eviction.evict(files)
                done += part
                if not part.worked:
                    raise Unmeasured(
                        f"{what}: the file system ignores POSIX_FADV_DONTNEED or hides its effect from this user, or "
                        f"other processes have mapped the files: {part.resident_share:.0%} of "
                        f"{part.bytes / 1e9:.2f} GB stayed in the page cache"
                    )
            with session.sample(side, what):
                sample = dropped(session.cold_start(side, trial), done.evicted, done.resident_share)
                session.say(
                    f"{what} {side.name}: {sample.first_image:.2f} s{'' if trial else ' (left out)'}; evicted "
                    f"{done.evicted / 1e9:.2f} of {done.bytes / 1e9:.2f} GB, {done.resident_share:.1%} resident"
                )
                if trial:
                    session.raw.cold.append(sample)


def batch(session: Session, sizes: Sequence[int], repeats: int) -> None:
    """Several pictures in one request; the first of each size is left out, for it plans and allocates.

    Sides that compile would spend minutes on each size, and take no part.
    """
    sides = [side for side in session.sides if not side.compiled]
    servers = session.servers(sides, "batch")
    for images in sizes:
        for repeat in range(repeats + 1):
            what = f"batch of {images}, {repeat}/{repeats}"
            for side in session.turn(sides, repeat, what):
                with session.sample(side, what):
                    seconds = request(servers[side.name], session.raw.workload, 100 * repeat, images)
                    session.say(f"{what} {side.name}: {seconds:.3f} s{'' if repeat else ' (left out)'}")
                    if repeat:
                        session.raw.latency.append(
                            Latency(side=side.name, facet="batch", images=images, seconds=seconds)
                        )


def poisson(session: Session, count: int, share: float) -> None:
    """Poisson arrivals at `share` of what each side did in its best burst; all sides get every side's rate."""
    capacities = {side.name: max(burst_rates(session.raw, side.name), default=0.0) for side in session.sides}
    servers = session.servers(session.sides, "poisson")
    for name, capacity in sorted(capacities.items(), key=lambda pair: pair[1]):
        if not capacity:
            continue  # it lost requests in every burst, and its load samples say so
        rate = share * capacity
        schedule = f"Poisson at {share:.0%} of {name}"
        for side in session.turn(session.sides, 0, schedule):
            with session.sample(side, schedule):
                run = _driven(servers[side.name], session, schedule, rate, arrivals.poisson(rate, count, seed=1))
                session.say(f"{schedule} ({rate:.2f}/s) {side.name}: {run.achieved_rate:.2f} pictures/s")


def _starts(session: Session, sides: Sequence[Side], first: int, last: int) -> None:
    for trial in range(first, last + 1):
        what = f"cold {trial}/{last}"
        for side in session.turn(sides, trial, what):
            with session.sample(side, what):
                sample = session.cold_start(side, trial)
                session.say(f"{what} {side.name}: {sample.first_image:.2f} s{'' if trial else ' (left out)'}")
                if trial:
                    session.raw.cold.append(sample)


def _gpu_memory(session: Session, side: Side, pids: list[int]) -> tuple[int, Literal["processes", "freed"]]:
    listed = processes.gpu_memory(pids)
    if listed is not None:
        return listed, "processes"
    before = processes.gpu_used()
    session.stop(side)
    return before - processes.gpu_used(), "freed"


def _driven(running: Running, session: Session, name: str, rate: float | None, schedule: Sequence[float]) -> LoadRun:
    run = LoadRun(
        side=running.side.name,
        schedule=name,
        requested_rate=rate,
        arrivals=drive(running, session.raw.workload, schedule, first_seed=0),
    )
    session.raw.load.append(run)
    return run
