from prometheus_client import CollectorRegistry

from predictor import clock
from predictor.core.timeline import START, Mark
from predictor.server.coldstart import ColdStart
from predictor.server.metrics import Metrics


def begun() -> tuple[ColdStart, CollectorRegistry]:
    registry = CollectorRegistry()
    marks = [Mark("server", START, 10.0), Mark("server", "interpreter", 10.5)]
    return ColdStart(marks, Metrics("sd", registry)), registry


def test_each_mark_becomes_one_observation_of_its_phase():
    coldstart, registry = begun()
    coldstart.engine_marked(Mark("engine", START, 11.0))
    coldstart.engine_marked(Mark("engine", "imports", 13.0))
    coldstart.engine_marked(Mark("engine", "weights", 17.0, since="imports"))
    sums = {
        phase: registry.get_sample_value("sdzero_cold_start_seconds_sum", {"process": process, "phase": phase})
        for process, phase in (("server", "interpreter"), ("engine", "imports"), ("engine", "weights"))
    }
    assert sums == {"interpreter": 0.5, "imports": 2.0, "weights": 4.0}


def test_the_phase_is_what_the_engine_finished_last():
    coldstart, _ = begun()
    assert coldstart.phase == "starting"
    coldstart.engine_marked(Mark("engine", START, 11.0))
    assert coldstart.phase == "starting"
    coldstart.engine_marked(Mark("engine", "imports", 13.0))
    assert coldstart.phase == "imports"
    coldstart.engine_died()
    assert coldstart.phase == "starting"


def test_a_later_first_request_is_no_part_of_the_start():
    coldstart, _ = begun()
    coldstart.once("first_request")
    marks = coldstart.marks
    coldstart.once("first_request")
    assert coldstart.marks == marks


def test_phase_names_are_header_tokens():
    coldstart, _ = begun()
    coldstart.engine_marked(Mark("engine", START, 11.0))
    coldstart.engine_marked(Mark("engine", "weights, on device", 12.0))
    assert [name for name, _ in coldstart.durations()] == ["cold-server-interpreter", "cold-engine-weights--on-device"]


def test_an_engine_that_dies_is_no_end_of_the_pod_s_start():
    coldstart, _ = begun()
    coldstart.engine_marked(Mark("engine", START, 11.0))
    coldstart.engine_died()
    assert [(mark.process, mark.name) for mark in coldstart.marks] == [("server", START), ("server", "interpreter")]


def test_a_start_after_a_sleep_tells_of_nothing_before_it():
    coldstart, registry = begun()
    coldstart.engine_marked(Mark("engine", START, 11.0))
    for name in ("engine_ready", "first_request", "first_image"):
        coldstart.once(name)
    before = clock.now()
    coldstart.woken()
    coldstart.engine_marked(Mark("engine", START, clock.now()))
    coldstart.once("engine_ready", since="assembled")  # which was in the pod's start
    coldstart.once("first_request", since="engine_ready")
    assert [(mark.process, mark.name) for mark in coldstart.marks] == [
        ("server", START),
        ("engine", START),
        ("server", "engine_ready"),
        ("server", "first_request"),
    ]
    first, *_, last = coldstart.marks
    assert before <= first.at
    assert coldstart.report()["seconds"] == last.at - first.at
    assert [name for name, _ in coldstart.durations()] == ["cold-server-engine_ready", "cold-server-first_request"]
    labels = {"process": "server", "phase": "engine_ready"}
    assert registry.get_sample_value("sdzero_cold_start_seconds_count", labels) == 2
