import itertools
import math
import re

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from predictor.core.timeline import START, Mark, Phase, chart, phases, server_timing, span

NAMES = st.sampled_from([START, "interpreter", "imports", "weights_read", "ready", ""])
MARKS = st.lists(
    st.builds(Mark, st.sampled_from(["server", "engine"]), NAMES, st.floats(0, 1e6), NAMES), min_size=0, max_size=12
)
COLD_START = [
    Mark("server", START, 100.0),
    Mark("server", "imports", 102.0),
    Mark("engine", START, 100.5),
    Mark("engine", "imports", 104.5),
    Mark("engine", "weights_read", 103.5),
    Mark("engine", "warm_up", 105.0, since="imports"),
    Mark("server", "ready", 105.5, since="imports"),
]
# W3C Server Timing, section 3, over the tokens of RFC 9110, section 5.6.2.
TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
METRIC = rf"{TOKEN}(;{TOKEN}=({TOKEN}|\"[^\"\\]*\"))*"


def test_where_the_seconds_of_a_cold_start_go() -> None:
    assert phases(COLD_START) == [
        Phase("server", "imports", 0.0, 2.0),
        Phase("engine", "weights_read", 0.5, 3.0),  # overlaps the imports
        Phase("engine", "imports", 0.5, 4.0),
        Phase("engine", "warm_up", 4.5, 0.5),
        Phase("server", "ready", 2.0, 3.5),
    ]
    assert span(COLD_START) == 5.5


def test_an_unseen_beginning_is_the_first_mark_of_the_process() -> None:
    marks = [Mark("server", START, 5.0), Mark("engine", "imports", 9.0), Mark("engine", "ready", 10.0, since="lost")]
    assert phases(marks) == [Phase("engine", "imports", 4.0, 0.0), Phase("engine", "ready", 4.0, 1.0)]


@given(MARKS)
def test_phases_lie_within_the_span(marks: list[Mark]) -> None:
    found = phases(marks)
    assert len(found) == sum(mark.name != START for mark in marks)
    for phase in found:
        assert phase.seconds >= 0
        assert phase.start >= 0
        assert phase.start + phase.seconds <= span(marks) + 1e-6
    ends = [phase.start + phase.seconds for phase in found]
    assert all(later - earlier > -1e-6 for earlier, later in itertools.pairwise(ends))


@given(MARKS.flatmap(lambda marks: st.tuples(st.just(marks), st.permutations(marks))))
def test_the_order_of_arrival_does_not_matter(both: tuple[list[Mark], list[Mark]]) -> None:
    marks, shuffled = both
    if len({mark.at for mark in marks}) == len(marks):
        assert phases(marks) == phases(shuffled)


def test_no_marks() -> None:
    assert phases([]) == []
    assert span([]) == 0.0
    assert chart([]) == "no marks yet\n"


def test_server_timing() -> None:
    assert server_timing([("queue", 0.0), ("denoise", 1.23456)]) == "queue;dur=0.0, denoise;dur=1234.6"
    assert server_timing([]) == ""


@given(st.lists(st.tuples(st.text(), st.floats()), max_size=4))
def test_server_timing_is_well_formed_or_refused(durations: list[tuple[str, float]]) -> None:
    try:
        header = server_timing(durations)
    except ValueError:
        assert any(not re.fullmatch(TOKEN, name) or not 0 <= seconds < math.inf for name, seconds in durations)
    else:
        assert re.fullmatch(rf"({METRIC}(, {METRIC})*)?", header)


@pytest.mark.parametrize("name", ["two words", "", "a;b", "a,b", "ü", "line\nbreak"])
def test_server_timing_refuses_what_would_break_the_header(name: str) -> None:
    with pytest.raises(ValueError, match="an HTTP token"):
        server_timing([(name, 1.0)])


def test_a_chart_to_the_eye() -> None:
    assert chart(phases(COLD_START), width=22).splitlines() == [
        "                     0 s             5.50 s",
        "server imports       ████████                  2.000 s",
        "engine weights_read    ████████████            3.000 s",
        "engine imports         ████████████████        4.000 s",
        "engine warm_up                         ██      0.500 s",
        "server ready                 ██████████████    3.500 s",
    ]


@given(marks=MARKS, width=st.integers(20, 120))
@example(marks=[Mark("server", START, 0.0), Mark("engine", "interpreter", 8.1e-309)], width=20)
@example(marks=[Mark("server", "ready", 5.0)], width=20)
def test_bars_stay_on_the_axis(marks: list[Mark], width: int) -> None:
    found = phases(marks)
    assume(found)
    axis, *lines = chart(found, width).removesuffix("\n").split("\n")
    label = max(len(f"{phase.process} {phase.name}") for phase in found)
    assert len(axis) == label + 2 + width
    assert len(lines) == len(found)
    for line, phase in zip(lines, found, strict=True):
        bar = line[label + 2 :][:width]
        assert line[:label].rstrip() == f"{phase.process} {phase.name}".rstrip()
        assert re.fullmatch(r" *█+ *", bar)  # nothing vanishes, however short
        assert re.fullmatch(r"  +\d+\.\d{3} s", line[label + 2 + width :])
