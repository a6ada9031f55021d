"""Schedules and what they ask for: drawn before anything is sent, the same for the same seed."""

import gzip

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadtest.arrivals import Burst, Diurnal, Poisson, Ramp, Wake, schedule
from loadtest.plan import shots
from loadtest.scenarios import SCENARIOS, changed

KINDS = [
    Burst(size=16),
    Poisson(rate=5.0, seconds=60.0),
    Wake(rate=2.0, seconds=30.0),
    Ramp(first=1.0, last=9.0, steps=3, seconds=300.0),
    Diurnal(rate=2.0, peak=2.0, day=200.0, days=2.0),
]


@pytest.mark.parametrize("arrivals", KINDS, ids=lambda kind: type(kind).__name__)
@given(seed=st.integers(0, 2**31))
@settings(max_examples=20, deadline=None)
def test_a_schedule_rises_lasts_as_long_as_it_says_and_repeats_with_its_seed(arrivals, seed):
    at = schedule(arrivals, seed)
    assert np.all(np.diff(at) >= 0)
    assert at[0] >= 0
    lasts = {Burst: 0.0, Diurnal: 400.0}.get(type(arrivals)) or getattr(arrivals, "seconds", 0.0)
    assert at[-1] <= lasts
    assert np.array_equal(at, schedule(arrivals, seed))


def test_rates_are_what_was_asked_for():
    assert len(schedule(Poisson(rate=50.0, seconds=200.0), 1)) == pytest.approx(10_000, rel=0.05)
    ramp = schedule(Ramp(first=10.0, last=30.0, steps=3, seconds=300.0), 1)
    counts = np.histogram(ramp, [0, 100, 200, 300])[0]
    assert counts == pytest.approx([1000, 2000, 3000], rel=0.1)
    day = schedule(Diurnal(rate=20.0, peak=2.0, day=400.0, days=1.0), 1)
    night, noon = np.sum(day < 100) + np.sum(day > 300), np.sum((day > 100) & (day < 300))
    assert len(day) == pytest.approx(8000, rel=0.1)
    assert noon / night == pytest.approx((1 + 2 / np.pi) / (1 - 2 / np.pi), rel=0.1)


def test_a_trace_is_compressed_by_its_factor_and_keeps_its_requests(tmp_path):
    path = tmp_path / "trace.csv.gz"
    lines = ["at,images,steps", "0,1,30", "60,4,20", "600,2,50", "9000,1,30"]
    path.write_bytes(gzip.compress("\n".join(lines).encode()))
    settings = [f"arrivals.path={path}", "arrivals.factor=60", "arrivals.seconds=20"]
    found = shots(changed(SCENARIOS["replay"], settings), seed=3)
    assert [(shot.at, shot.images, shot.steps) for shot in found] == [(0.0, 1, 30), (1.0, 4, 20), (10.0, 2, 50)]
    later = shots(changed(SCENARIOS["replay"], [*settings, "arrivals.skip=60", "arrivals.seconds=10"]), seed=3)
    assert [(shot.at, shot.images) for shot in later] == [(0.0, 4), (9.0, 2)]


def test_nothing_to_send_is_an_error():
    with pytest.raises(ValueError, match="nothing would be sent"):
        schedule(Poisson(rate=0.001, seconds=1.0), 0)


def test_who_asks_for_the_same_picture_asks_for_all_of_it():
    mix = ["mix.repeats=0.5", "mix.pool=3", "mix.sizes=64x64,128x128", "mix.steps=4,20", "mix.images=1,2"]
    found = shots(changed(SCENARIOS["warm"], [*mix, "arrivals.rate=20"]), seed=5)
    asked = {}
    for shot in found:
        what = (shot.prompt, shot.seed, shot.steps, shot.size, shot.images)
        assert asked.setdefault(shot.identity, what) == what
    repeated = [shot for shot in found if shot.repeated]
    assert {shot.identity for shot in repeated} == {0, 1, 2}
    assert len(repeated) == pytest.approx(len(found) / 2, rel=0.1)
    fresh = [shot.seed for shot in found if not shot.repeated]
    assert len(set(fresh)) == len(fresh)


def test_no_cache_knows_the_pictures_of_another_run_or_cycle():
    scenario = changed(SCENARIOS["cold-concurrency"], ["mix.repeats=0.5"])
    runs = [shots(scenario, seed, cycle) for seed in (1, 2) for cycle in (0, 1)]
    seeds = [{shot.seed for shot in run} for run in runs]
    assert all(not a & b for n, a in enumerate(seeds) for b in seeds[:n])


def test_two_targets_are_asked_equally_often_and_cycles_in_turn():
    found = shots(changed(SCENARIOS["warm"], ["arrivals.rate=10"]), 1, targets=("a", "b"))
    for first, second in zip(found[::2], found[1::2], strict=False):
        assert {first.target, second.target} == {"a", "b"}
    assert len({shot.target for shot in found[::2]}) == 2  # who comes first is drawn
    assert [shots(SCENARIOS["cold-once"], 1, n, ("a", "b"))[0].target for n in range(4)] == ["a", "b", "a", "b"]


@pytest.mark.parametrize("name", SCENARIOS)
def test_every_scenario_is_data_that_survives_json(name):
    scenario = SCENARIOS[name]
    assert msgspec.json.decode(msgspec.json.encode(scenario), type=type(scenario)) == scenario
    # Longer than a cold start, unless giving up is what it is about.
    assert scenario.timeout >= 300 or scenario.retries


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("cycles=0", "`int` >= 1"),
        ("cycles", "allowed: FIELD=VALUE with one of"),
        ("arrivals.size=many", "arrivals"),
        ("arrivals.rate=2", r"allowed: FIELD=VALUE with one of .*arrivals\.size"),
        ("arrivals=2", "allowed: FIELD=VALUE"),
        ("mix.repeats=1.5", "<= 1"),
        ("quark=1", "allowed: FIELD=VALUE"),
    ],
)
def test_a_setting_that_is_none_is_refused_in_words(setting, words):
    with pytest.raises(ValueError, match=words):
        changed(SCENARIOS["cold-once"], [setting])


def test_settings_change_what_they_name():
    found = changed(
        SCENARIOS["burst-from-zero"], ["cycles=3", "arrivals.size=4", "mix.sizes=64x64,96x96", "timeout=9.5"]
    )
    assert (found.cycles, found.arrivals, found.mix.sizes, found.timeout) == (3, Burst(size=4), ("64x64", "96x96"), 9.5)
