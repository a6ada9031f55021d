import asyncio
import os
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from predictor.lab.bench.edge import STATUS, Idle, Measured, Round, Start, figures, load, table, write

COMMITTED = sorted((Path(__file__).parents[3] / "docs" / "measurements" / "edge").glob("*.json"))
STARTS = [Start(first=True, seconds=1.5), *(Start(first=False, seconds=seconds) for seconds in (1.3, 1.0, 1.1))]
ROUNDS = [
    Round(kind=kind, connections=4, requests=requests, seconds=2.0, cpu_seconds=1.0, p50=0.004, p99=0.01 * requests)
    for kind in STATUS
    for requests in (300, 100, 200)
]


@asynccontextmanager
async def answering(reply: bytes):
    """The port of a server that says the same to everybody."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                await reader.readexactly(int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]))
                writer.write(reply)
        except asyncio.IncompleteReadError:
            writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]


def test_figures_are_medians_and_the_first_start_stands_apart():
    found = figures(STARTS, ROUNDS)
    assert (found["first_start"], found["start"]) == (1.5, 1.1)
    for kind in STATUS:
        assert (found[f"{kind}_per_second"], found[f"{kind}_per_cpu_second"]) == (100.0, 200.0)
        assert (found[f"{kind}_p50"], found[f"{kind}_p99"]) == (0.004, 2.0)


def test_a_round_too_short_for_the_processor_s_clock_has_a_rate_all_the_same():
    rounds = [msgspec.structs.replace(one, cpu_seconds=0.0) for one in ROUNDS]
    assert figures(STARTS, rounds)["hit_per_cpu_second"] == 20_000.0


def test_what_is_written_is_what_was_measured(tmp_path):
    measured = Measured(
        command="sdzero bench edge",
        commit="abc",
        machine={"cpu_count": 2},
        date="2026-01-01T00:00:00+00:00",
        figures=figures(STARTS, ROUNDS),
        starts=STARTS,
        idle=Idle(rss_peak=80 * 2**20, pss=50 * 2**20),
        rounds=ROUNDS,
    )
    write(tmp_path / "new" / "edge.json", measured)
    assert msgspec.json.decode((tmp_path / "new" / "edge.json").read_bytes(), type=Measured) == measured
    assert table(measured).splitlines() == [
        "start            first 1.50 s, then 1.10 s",
        "idle             80 MiB at most, 50 MiB with shared pages counted once",
        *(
            f"{kind:16} 100 /s, 200 per second of processor, p50 4.0 ms, p99 2000.0 ms"
            for kind in ("hit", "unauthenticated", "wake_refused")
        ),
    ]


@pytest.mark.parametrize("file", COMMITTED, ids=lambda file: file.stem)
def test_the_committed_figures_are_those_of_the_committed_samples(file):
    measured = msgspec.json.decode(file.read_bytes(), type=Measured)
    assert figures(measured.starts, measured.rounds) == measured.figures


async def test_load_counts_what_was_answered():
    async with answering(b"HTTP/1.1 401 Unauthorized\r\ncontent-length: 2\r\n\r\n{}") as port:
        driven = await load(os.getpid(), port, "unauthenticated", "sk-unknown", 3, 1.0)
    assert (driven.kind, driven.connections) == ("unauthenticated", 3)
    assert driven.requests >= 3
    assert 0 < driven.p50 <= driven.p99 <= driven.seconds


@pytest.mark.parametrize(
    ("kind", "reply"),
    [
        ("hit", b"HTTP/1.1 200 OK\r\nx-cache: miss\r\ncontent-length: 2\r\n\r\n{}"),
        ("hit", b"HTTP/1.1 503 Service Unavailable\r\nx-cache: hit\r\ncontent-length: 2\r\n\r\n{}"),
        ("wake_refused", b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"),
    ],
)
async def test_another_answer_than_what_is_measured_ends_it(kind, reply):
    async with answering(reply) as port:
        with pytest.raises(RuntimeError, match=f"^{kind}: HTTP/1.1 "):
            await load(os.getpid(), port, kind, "sk", 1, 30.0)
