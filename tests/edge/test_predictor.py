"""The edge's client of the predictor, against the real one, and the real server with a fake engine."""

import asyncio
import base64
import itertools
import os
import signal

import msgspec
import numpy as np
import pytest

from predictor.core.problems import DeadlineExceeded, EngineLost, InvalidField, OutOfMemory, PredictorLost, QueueFull
from predictor.edge.predictor import Accepted, Pictures, Progress, Waking
from tests.edge import predictors
from tests.edge.predictors import ASKED, SMALL, ask, heard
from tests.processes import wait_until
from tests.server import conftest as servers

start_fake = servers.start  # the real server with a fake engine, which can be made to fail
CANCELLED = 'sdzero_requests_total{outcome="cancelled"}'

connect = predictors.connect


@pytest.fixture(scope="module")
def real(start_predictor):
    return start_predictor()


@pytest.fixture(scope="module")
def fake(start_fake):
    return start_fake()


async def until(condition) -> None:
    await asyncio.to_thread(wait_until, condition)


async def test_the_pictures_are_those_that_any_client_gets(real, connect, decoded):
    predictor = connect(real.url, "shapes")
    accepted, *progress, pictures = await heard(predictor.generate("g", ASKED, seconds=60, previews=True))
    assert isinstance(accepted, Accepted)
    assert (accepted.prompt_tokens, accepted.negative_prompt_tokens) == (7, 1)
    assert [(update.step, update.steps) for update in progress] == [(step, 5) for step in range(1, 6)]
    assert {len(update.previews) for update in progress} == {2}
    assert decoded(progress[0].previews[0]).ndim == 3
    assert isinstance(pictures, Pictures)
    assert pictures.seeds == (7, 8)
    assert (pictures.prompt_tokens, pictures.negative_prompt_tokens) == (7, 1)
    assert list(pictures.timing) == ["queue", "encode", "denoise", "decode", "pack", "total"]
    assert 0 < pictures.gpu_seconds <= pictures.timing["total"]
    assert pictures.revision == (await predictor.capabilities()).revision
    assert predictor.requests == 2
    asked = {name: value for name, value in msgspec.structs.asdict(ASKED).items() if name != "prompt"}
    theirs = real.pictures(ASKED.prompt, **asked)
    ours = [decoded(base64.b64encode(file).decode()) for file in pictures.files]
    assert all(np.array_equal(one, other) for one, other in zip(ours, theirs, strict=True))


async def test_the_capabilities_are_what_the_predictor_checks_with(real, connect):
    found = await connect(real.url, "shapes").capabilities()
    assert (found.default_height, found.runtime, found.max_steps) == (128, "eager", 150)
    beyond = msgspec.structs.replace(ASKED, steps=found.max_steps + 1)
    with pytest.raises(InvalidField, match="steps: got 151; allowed: 1 to 150"):
        await heard(ask(connect(real.url, "shapes"), beyond))


async def test_who_stops_listening_frees_the_rows(real, connect):
    before = real.metric(CANCELLED)
    updates = ask(connect(real.url, "shapes"), msgspec.structs.replace(ASKED, steps=150, num_images=8))
    async for update in updates:
        if isinstance(update, Progress):
            break
    assert real.metric("sdzero_images_in_flight") == 8
    await updates.aclose()
    await until(lambda: real.metric(CANCELLED) == before + 1)
    assert real.metric("sdzero_images_in_flight") == 0


async def test_a_listener_that_is_cancelled_frees_the_rows(real, connect):
    before = real.metric(CANCELLED)
    long = msgspec.structs.replace(ASKED, steps=150, num_images=8)
    task = asyncio.create_task(heard(ask(connect(real.url, "shapes"), long)))
    await until(lambda: real.metric("sdzero_images_in_flight") == 8)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(lambda: real.metric(CANCELLED) == before + 1)


async def test_a_predictor_that_was_just_started_is_waited_for(start_predictor, connect):
    """From a port that nobody listens on to a picture, in one call."""
    starting = start_predictor(ready=False)
    predictor = connect(starting.url, "shapes")
    updates = await heard(ask(predictor, ASKED, seconds=120))
    kinds = [kind for kind, _ in itertools.groupby(map(type, updates))]
    assert kinds == [Waking, Accepted, Progress, Pictures]
    assert updates[0] == Waking("unreachable")
    pictures = updates[-1]
    assert pictures.cold_start
    assert {"server-imports", "engine-torch", "engine-weights_read", "engine-warm"} <= set(pictures.cold_phases)
    assert all(seconds >= 0 for seconds in pictures.cold_phases.values())
    assert not any(name.startswith("cold-") for name in pictures.timing)
    warm = (await heard(ask(predictor, ASKED)))[-1]
    assert (warm.cold_start, warm.cold_phases) == (False, {})


async def test_the_phase_of_the_start_is_told(start_fake, connect):
    server = start_fake(engine={"FAKE_GATE": "{folder}/gate"}, wait=False)
    predictor = connect(server.url)
    phases = []
    async with asyncio.timeout(60):
        async for update in ask(predictor, seconds=60):
            if isinstance(update, Waking):
                phases.append(update.phase)
                if update.phase == "imports":
                    server.gate.touch()
    assert "imports" in phases
    assert set(phases) <= {"unreachable", "starting", "imports", "weights_read"}
    assert isinstance(update, Pictures)
    assert predictor.requests == len(phases) + 1


async def test_the_capabilities_wait_for_the_start_too(start_fake, connect):
    server = start_fake(engine={"FAKE_GATE": "{folder}/gate"}, wait=False)
    predictor = connect(server.url)
    with pytest.raises(DeadlineExceeded, match=r"seen last: (unreachable|starting|imports)"):
        await predictor.capabilities(seconds=0.6)
    server.gate.touch()
    assert (await predictor.capabilities()).revision == "fake-1"


@pytest.mark.parametrize(
    ("prompt", "problem", "words"),
    [
        ("long", InvalidField, "prompt: got '99 tokens'; allowed: at most 77 tokens"),
        ("oom", OutOfMemory, "no memory left"),
    ],
)
async def test_the_problem_is_the_predictors_own(fake, connect, prompt, problem, words):
    predictor = connect(fake.url)
    with pytest.raises(problem, match=words) as caught:
        await heard(ask(predictor, msgspec.structs.replace(SMALL, prompt=prompt)))
    assert type(caught.value) is problem
    assert caught.value.field == ("prompt" if problem is InvalidField else None)
    assert caught.value.retry_after == (3.0 if problem is OutOfMemory else None)
    assert predictor.requests == 1


async def test_a_full_queue_is_for_the_caller_to_wait_for(start_fake, connect):
    server = start_fake(engine={"FAKE_RELEASE": "{folder}/release"}, queue_images=1)
    predictor = connect(server.url)
    first = ask(predictor, msgspec.structs.replace(SMALL, prompt="hold"))
    assert isinstance(await anext(first), Accepted)
    with pytest.raises(QueueFull):
        await heard(ask(predictor))
    (server.folder / "release").touch()
    assert isinstance((await heard(first))[-1], Pictures)


async def test_an_engine_that_dies_is_told_and_its_successor_waited_for(start_fake, connect):
    server = start_fake()
    predictor = connect(server.url)
    with pytest.raises(EngineLost):
        await heard(ask(predictor, msgspec.structs.replace(SMALL, prompt="die")))
    assert isinstance((await heard(ask(predictor)))[-1], Pictures)


async def test_a_predictor_that_is_killed_after_it_accepted_is_lost(start_fake, connect):
    server = start_fake(engine={"FAKE_RELEASE": "{folder}/release"})
    updates = ask(connect(server.url), msgspec.structs.replace(SMALL, prompt="hold"))
    assert isinstance(await anext(updates), Accepted)
    assert isinstance(await anext(updates), Progress)
    os.kill(server.popen.pid, signal.SIGKILL)
    with pytest.raises(PredictorLost, match="went away before the images were done") as caught:
        await anext(updates)
    assert caught.value.retry_after


async def test_time_that_runs_out_while_it_works_takes_the_rows_back(start_fake, connect):
    server = start_fake(engine={"FAKE_RELEASE": "{folder}/release"})
    updates = ask(connect(server.url), msgspec.structs.replace(SMALL, prompt="hold"), seconds=2.0)
    with pytest.raises(DeadlineExceeded, match="before the images were done"):
        await heard(updates)
    await until(lambda: any(note.startswith("cancel") for note in server.engine_notes))


async def test_the_connection_is_used_again_and_nothing_looks_like_a_hangup(fake, connect):
    before, predictor = fake.metric(CANCELLED), connect(fake.url)
    connections = set()
    for _ in range(3):
        updates = ask(predictor)
        async for update in updates:
            connections |= {established(fake.http_port)}
            if isinstance(update, Pictures):
                break
        await updates.aclose()
    assert len(connections) == 1
    assert fake.metric(CANCELLED) == before


def established(port: int) -> frozenset[str]:
    """Local ends of this machine's connections to a port (proc_pid_net_tcp(5))."""
    with open("/proc/net/tcp") as table:  # noqa: PTH123
        rows = [line.split() for line in table.readlines()[1:]]
    return frozenset(row[1] for row in rows if row[2].endswith(f":{port:04X}") and row[3] == "01")
