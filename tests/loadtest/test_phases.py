"""Parts of a cold start add up to the whole, whatever is known of it."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadtest.phases import FIRST_REQUEST, PROCESS, Moment, cold_phases, join
from loadtest.samples import Sample

spans = st.floats(0, 50).map(lambda value: round(value, 4))
CHAIN = ("decision", "pod", "scheduled", "sandbox", "pulled", "created", "started", "ready")


def woke(seconds: float, timing: str = "", late: float = 0.0) -> Sample:
    return Sample(
        index=0, identity=0, intended=10.0, sent=10.0 + late, connected=10.0 + late, finished=10.0 + seconds,
        outcome="ok", server_timing=timing,
    )  # fmt: skip


@given(
    st.lists(st.tuples(st.sampled_from(CHAIN), spans), max_size=8, unique_by=lambda pair: pair[0]),
    st.dictionaries(st.sampled_from([*PROCESS, FIRST_REQUEST, "engine-ready"]), spans),
    st.none() | spans, spans, spans,
)  # fmt: skip
@settings(deadline=None)
def test_parts_always_add_up(chain, told, total, late, seconds):
    chain = sorted(chain, key=lambda pair: CHAIN.index(pair[0]))
    at, moments = 10.0 + late, []
    for name, span in chain:
        at += span
        moments.append(Moment(name=name, at=at, received=at))
    timing = "" if total is None else f"total;dur={1000 * total:.1f}"
    start = join(woke(seconds, timing, late), moments=moments, told=told)
    assert sum(part.seconds for part in start.parts) == pytest.approx(start.seconds, abs=1e-9)
    assert start.parts[-1].name == "unexplained"
    assert [part.name for part in start.parts].count("unexplained") == 1
    assert bool(start.missing) == (
        not [name for name, _ in chain if name != "ready"] or not set(PROCESS) <= set(told) or total is None
    )


def test_each_source_tells_its_part():
    timing = (
        "wake;dur=3000.0, queue;dur=1.0, total;dur=500.0, cold-server-interpreter;dur=100.0, "
        "cold-server-imports;dur=400.0, cold-server-assembled;dur=10.0, cold-server-engine_ready;dur=1000.0, "
        "cold-server-first_request;dur=40.0, cold-engine-ready;dur=900.0"
    )
    moments = [
        Moment(name="decision", at=10.3, received=10.3),
        Moment(name="pod", at=10.35, received=10.4, reported=10.0),
        Moment(name="scheduled", at=10.4, received=10.4, reported=10.0, text="on gpu-node-17"),
        Moment(name="pulled", at=11.4, received=11.5, reported=11.0, text="image already present on machine"),
        Moment(name="started", at=11.6, received=11.7, reported=11.0),
        Moment(name="ready", at=13.4, received=13.4, reported=13.0),
    ]  # fmt: skip
    start = join(woke(4.0, timing, late=0.01), moments=moments)
    parts = {part.name: (round(part.seconds, 3), part.source) for part in start.parts}
    assert parts == {
        "late": (0.01, "client"),
        "decision": (0.29, "cluster"),
        "pod": (0.05, "cluster"),
        "schedule": (0.05, "cluster"),
        "pull": (1.0, "cluster"),
        "start": (0.2, "cluster"),
        "process": (1.51, "product"),
        "first_request": (0.04, "product"),
        "making": (0.5, "product"),
        "unexplained": (0.35, "nobody"),
    }
    assert start.missing == []
    assert (start.state.image, start.state.node) == ("present", "known")
    assert "gpu-node-17" not in repr(start.state)
    assert start.told["engine-ready"] == 0.9


def test_phases_of_a_start_are_those_that_say_so():
    assert cold_phases("queue;dur=5.0, cold-engine-weights_read;dur=904.5") == {"engine-weights_read": 0.9045}
    assert cold_phases("") == {}
