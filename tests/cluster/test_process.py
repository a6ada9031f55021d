import httpx
import pytest

from predictor.cluster import process
from predictor.core.timeline import START, Mark, phases
from tests.processes import wait_until
from tests.server.conftest import v2

READY = (
    '{"seconds": 2.5, "revision": "r1", "event": "ready", "level": "info", "logger": "sdzero.server", '
    '"timestamp": "2026-01-02T03:04:05.250000Z"}'
)
REQUEST = (
    '{"request_id": "x", "dialect": "http", "outcome": "ok", "seconds": 0.5, "event": "request", "level": "info", '
    '"logger": "sdzero.http", "timestamp": "2026-01-02T03:04:07Z"}'
)


def test_a_real_predictors_log_and_timeline_become_one_story(start_server):
    server = start_server()
    assert httpx.post(server.infer, json=v2()).status_code == 200

    def said() -> list[process.Said]:
        lines = (server.folder / "stdout").read_text().splitlines()
        return [told for line in lines if (told := process.of_log(line))]

    wait_until(lambda: len(said()) == 2)  # an answer is written down after it has been sent
    ready, answer = said()
    assert (ready.name, answer.name) == ("engine_ready", "first_answer")
    assert answer.text.startswith("http, ")

    marks = process.of_timeline(httpx.get(f"{server.url}/timeline").content, ready.at) + process.of_answer(answer)
    at = {(mark.process, mark.name): mark.at for mark in marks}
    assert at["server", "engine_ready"] == pytest.approx(ready.at)
    assert at["server", "first_answer"] == answer.at
    names = [(phase.process, phase.name) for phase in phases(marks)]
    assert names.count(("server", "first_request")) == 1
    assert {("server", "imports"), ("server", "engine_ready"), ("server", "first_answer")} <= set(names)
    # What the server counts from the boot is the same moment of the day.
    assert at["server", "first_request"] == pytest.approx(at["server", "first_image"], abs=1.0)


def test_the_line_of_the_first_answer():
    said = process.of_log(REQUEST)
    assert [(mark.name, mark.at) for mark in process.of_answer(said)] == [
        ("first_request", said.at - 0.5),
        ("first_answer", said.at),
    ]


def test_the_line_that_says_ready():
    said = process.of_log(READY)
    assert said == process.Said("engine_ready", 1767323045.25, text="revision r1")
    assert [(mark.name, mark.at) for mark in process.of_ready(said)] == [(START, said.at), ("engine_ready", said.at)]


@pytest.mark.parametrize(
    "line",
    [
        "",
        "hello",
        "[]",
        "{",
        '{"event": "ready"}',
        READY.replace("sdzero.server", "somebody"),
        READY.replace("ready", "stopped"),
        READY.replace("2.5", '"soon"'),
        READY.replace("2026-", "the year "),
        REQUEST.replace("ok", "invalid_field"),
    ],
)
def test_other_lines_say_nothing_whoever_writes_them(line):
    assert process.of_log(line) is None


@pytest.mark.parametrize("body", [b"", b"<html>", b'{"marks": 5}', b'{"marks": []}'])
def test_what_is_no_timeline_of_a_predictor_that_is_ready(body):
    with pytest.raises(ValueError, match=r"timeline"):
        process.of_timeline(body, 0.0)


def test_two_clocks():
    body = b"""{"marks": [
        {"process": "server", "name": "process_start", "at": 100.0, "since": "process_start"},
        {"process": "engine", "name": "torch", "at": 101.5, "since": "process_start"},
        {"process": "server", "name": "engine_ready", "at": 103.0, "since": "assembled"},
        {"process": "server", "name": "first_request", "at": 109.0, "since": "engine_ready"}
    ], "phases": [], "seconds": 9.0, "ready": true}"""
    assert process.of_timeline(body, 1_000_003.0) == [
        Mark("server", START, 1_000_000.0),
        Mark("engine", "torch", 1_000_001.5),
        Mark("server", "engine_ready", 1_000_003.0, "assembled"),
    ]
