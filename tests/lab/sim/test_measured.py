"""The simulator's data against the files that it names."""

import json
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from predictor.engine.baked import batches
from predictor.lab.sim.engine import Engine
from predictor.lab.sim.measured import LEAN, PLAIN, ColdStart, Predictor

MEASUREMENTS = Path(__file__).parents[3] / "docs" / "measurements"


def read(name: str) -> Any:
    return json.loads((MEASUREMENTS / name).read_text())


def starts(name: str, side: str, **of: str) -> list[dict[str, Any]]:
    """A run's starts, with the moments of each by process and name."""
    return [
        {**start, "at": {(mark["process"], mark["name"]): mark["at"] for mark in start.get("marks", [])}}
        for start in read(name)["raw"]["cold"]
        if start["side"] == side and start.get("page_cache") == of.get("page_cache")
    ]


def warm(side: str) -> float:
    return median(sample["seconds"] for sample in read("h100-sd15.json")["raw"]["latency"] if sample["side"] == side)


def ready(start: dict[str, Any]) -> float:
    seconds: float = start["at"]["server", "engine_ready"] - start["at"]["server", "process_start"]
    return seconds


def test_starts_of_the_lean_engine() -> None:
    found = starts("h100-sd15.json", "lean")
    assert len(found) == len(LEAN.cold_starts) == 7
    for start, cold in zip(found, LEAN.cold_starts, strict=True):
        engine = start["at"]["engine", "ready"] - start["at"]["engine", "process_start"]
        extra = start["first_image"] - start["at"]["server", "engine_ready"] - warm("lean")
        assert (cold.ready, cold.first_image_extra, cold.wake) == pytest.approx((ready(start), extra, engine), abs=1e-3)


def test_starts_of_the_plain_handler() -> None:
    found = starts("h100-sd15.json", "plain")
    assert len(found) == len(PLAIN.cold_starts) == 7
    for start, cold in zip(found, PLAIN.cold_starts, strict=True):
        assert cold.ready == pytest.approx(start["port_open"], abs=1e-3)
        assert cold.ready + cold.first_image_extra == pytest.approx(start["first_image"] - warm("plain"), abs=1e-3)


def test_a_page_cache_that_is_cold() -> None:
    dropped = starts("h100-sd15-dropped.json", "lean", page_cache="dropped")
    more = median(map(ready, dropped)) - median(start.ready for start in LEAN.cold_starts)
    assert LEAN.page_cache_cold == pytest.approx(more, abs=0.01)
    dropped, kept = starts("h100-sd15-dropped.json", "plain", page_cache="dropped"), starts("h100-sd15.json", "plain")
    more = median(start["first_image"] for start in dropped) - median(start["first_image"] for start in kept)
    assert PLAIN.page_cache_cold == pytest.approx(more, abs=0.01)


def test_steps_and_decoding_by_number_of_images() -> None:
    run = read("starts/h100-batches.json")["runs"][0]
    steps, decode = LEAN.steps.table(16), LEAN.decode.table(16)
    assert {size: 1000 * seconds for size, seconds in LEAN.steps.seconds} == pytest.approx(
        {int(size): each for size, each in run["step_ms"].items()}
    )
    assert [1000 * decode[size] for size in (1, 2, 4, 8, 12, 16)] == pytest.approx(
        [run["decode_ms"][str(size)] for size in (1, 2, 4, 8, 12, 16)], abs=0.5
    )
    rehearsal = LEAN.steps.rehearsal
    assert rehearsal is not None
    new = [size for size in rehearsal.sizes if size != 4]  # which had been rehearsed there
    first = [run["first_two_steps_seconds"][str(size)] - 2 * steps[size] for size in new]
    assert rehearsal.seconds == pytest.approx(median(first), abs=0.01)


def test_batches_keep_to_the_engines_rules() -> None:
    rehearsal = LEAN.steps.rehearsal
    assert rehearsal is not None
    assert rehearsal.sizes == tuple(size for size in batches.RUNGS if size <= LEAN.rows)
    assert (rehearsal.worth, rehearsal.waste) == (batches.WORTH, batches.WASTE)


def seconds(engine: Engine, predictor: Predictor, requests: int, at: float = 0.0) -> list[float]:
    """Latencies of so many requests at once, for one picture of 50 steps each."""
    for request in range(requests):
        engine.add(at, request, 1, 50)
    left: list[float] = []
    while engine.wake is not None:
        left += [freed - at for _, freed in engine.advance(engine.wake)]
    return [freed + predictor.request_overhead + predictor.packing for freed in left]


@pytest.mark.parametrize(("side", "predictor"), [("lean", LEAN), ("plain", PLAIN)])
def test_a_warm_picture(side: str, predictor: Predictor) -> None:
    assert seconds(Engine(predictor), predictor, 1) == pytest.approx([warm(side)], rel=0.01)


@pytest.mark.parametrize(("requests", "within"), [(4, 0.02), (16, 0.04), (32, 0.04)])
def test_bursts_that_nothing_was_taken_from(requests: int, within: float) -> None:
    (burst,) = (
        run["arrivals"]
        for run in read("h100-sd15.json")["raw"]["load"]
        if (run["side"], run["schedule"]) == ("lean", f"burst of {requests}")
    )
    engine = Engine(LEAN)
    seconds(engine, LEAN, requests)  # as there, where a burst came before
    found = seconds(engine, LEAN, requests, at=100.0)
    assert median(found) == pytest.approx(median(finished - due for due, _, finished, _ in burst), rel=within)


def test_the_kubelet_waits_for_a_second_every_ten() -> None:
    for ready, counted in ((0.9, 0.9), (1.0, 1.0), (1.1, 10.0), (10.9, 10.9), (11.1, 20.0)):
        assert ColdStart(ready).counted == pytest.approx(counted)
        assert ColdStart(ready, noticed=5.0).counted == max(ready, 5.0)
