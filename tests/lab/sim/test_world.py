from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from predictor.lab.sim.cluster import Pool
from predictor.lab.sim.configurations import CONFIGURATIONS
from predictor.lab.sim.edge import EdgeCache
from predictor.lab.sim.kpa import Autoscaling
from predictor.lab.sim.measured import ENDED_DRAIN, ENGINE_END, LEAN, PLAIN, TEARDOWN, ColdStart
from predictor.lab.sim.trace import Trace, generate
from predictor.lab.sim.world import Configuration, Outcome, Run, World

Make = Callable[..., Trace]
WARM = 0.016 + 30 * 0.00735 + 0.009 + 0.045  # seconds of a lean picture of 30 steps
# Starts of exactly 1 + 2 s, counted by the autoscaler at once, and no rehearsals: the rest can be counted by hand.
BASE = Configuration(
    name="base",
    predictor=replace(
        LEAN,
        cold_starts=(ColdStart(2.0, noticed=2.0, engine=1.5),),
        steps=replace(LEAN.steps, rehearsal=None),
    ),
    autoscaling=Autoscaling(container_concurrency=16, target_utilization_percentage=100, window=6, max_scale=1),
    floor=(1.0, 1.0),
    teardown=0.0,
)


def ran(trace: Trace, configuration: Configuration = BASE, seed: int = 0) -> Run:
    return World(trace, configuration, seed).run()


def test_one_request_at_zero_pays_for_the_start_and_the_pod_for_its_tail(trace: Make) -> None:
    run = ran(trace(10.0))
    assert run.latencies == pytest.approx([3.0 + WARM])
    assert run.cold == [True]
    # Ready at 13, answered at 13.29, so second 14 is the last that counts. The window of 6 s has forgotten it at 20;
    # the look at 20 finds it active for 7 s, and ends the pod, which drains for 30 s.
    assert run.pod_lives == pytest.approx([20.0 + 30.0 - 10.0])
    assert run.replicas == [(10.0, 1), (20.0, -1)]


def test_a_pod_that_serves_before_the_kubelet_has_noticed_stays_for_a_window_after_that(trace: Make) -> None:
    slow = replace(BASE, predictor=replace(BASE.predictor, cold_starts=(ColdStart(2.0),)))
    run = ran(trace(10.0), slow)
    assert run.latencies == pytest.approx([3.0 + WARM])
    # Noticed at 21, when nobody asks any more: active from then on, for the 6 s that a window lasts.
    assert run.replicas == [(10.0, 1), (27.0, -1)]


def test_what_a_real_cluster_did_between_an_answer_and_the_end_of_its_pod(trace: Make) -> None:
    """Knative 1.21 with a window of 6 s, pods counted at once: docs/measurements/cluster/replay-gentd26, 31 pods."""
    for start in np.arange(10.0, 12.0, 0.1):
        run = ran(trace(float(start)), replace(BASE, teardown=TEARDOWN))
        answered = start + run.latencies[0]
        (_, (told, _)) = run.replicas
        assert 5.9 <= told - answered <= 8.0
        assert start + run.pod_lives[0] - told == pytest.approx(31.0)


def test_a_second_request_finds_the_pod_warm(trace: Make) -> None:
    run = ran(trace(10.0, 15.0))
    assert run.latencies[1] == pytest.approx(WARM)
    assert run.cold == [True, False]
    assert len(run.pod_lives) == 1


def test_while_a_pod_drains_a_new_one_has_to_start(trace: Make) -> None:
    run = ran(trace(10.0, 30.0))
    assert run.latencies[1] == pytest.approx(3.0 + WARM)
    assert len(run.pod_lives) == 2


def test_on_a_single_gpu_it_has_to_wait_for_the_drain(trace: Make) -> None:
    run = ran(trace(10.0, 30.0), replace(BASE, pool=Pool(min_nodes=1, max_nodes=1)))
    # The first pod is gone at 50, as above.
    assert run.latencies[1] == pytest.approx(20.0 + 3.0 + WARM)


def test_a_drain_that_is_ended_keeps_the_next_request_waiting_for_seconds(trace: Make) -> None:
    """The numbers of the two tests above, with 2.5 s of a drain instead of 30."""
    ended = replace(BASE, drain=ENDED_DRAIN)
    assert CONFIGURATIONS["sdzero-ended-drains"]() == replace(
        CONFIGURATIONS["sdzero"](), name="sdzero-ended-drains", drain=2.5
    )
    assert ran(trace(10.0), ended).pod_lives == pytest.approx([20.0 + 2.5 - 10.0])
    run = ran(trace(10.0, 21.0), replace(ended, pool=Pool(min_nodes=1, max_nodes=1)))
    assert run.latencies[1] == pytest.approx(22.5 - 21.0 + 3.0 + WARM)


def test_termination_lasts_no_longer_than_a_request_may(trace: Make) -> None:
    run = ran(trace(10.0), replace(BASE, autoscaling=replace(BASE.autoscaling, timeout_seconds=15)))
    assert run.pod_lives == pytest.approx([10.0 + 15.0])


def test_requests_that_come_during_a_cold_start_share_steps(trace: Make) -> None:
    run = ran(trace(10.0, 10.5, 11.0, 11.5))
    together = 0.016 + 30 * 0.01961 + 0.043 + 0.045
    first_step_alone = 0.00735 - 0.01961  # the first is given to the engine before the others
    assert run.latencies[0] == pytest.approx(3.0 + together + first_step_alone, abs=0.03)
    assert len(run.pod_lives) == 1


def test_a_lazy_handler_loads_with_its_first_request(trace: Make) -> None:
    predictor = replace(PLAIN, cold_starts=(ColdStart(4.0, 5.0),))
    run = ran(trace(10.0, 25.0), replace(BASE, predictor=predictor))
    warm = 30 * 0.0553 + 0.014 + 0.045
    assert run.latencies == pytest.approx([1.0 + 4.0 + 5.0 + warm, warm])


def test_knatives_defaults_start_two_pods_for_one_request(trace: Make) -> None:
    run = ran(trace(10.0), CONFIGURATIONS["knative-plain"]())
    assert len(run.pod_lives) == 2


def test_a_request_that_waits_too_long_is_a_loss_and_not_an_answer(trace: Make) -> None:
    impatient = replace(BASE.autoscaling, timeout_seconds=2)
    run = ran(trace(10.0), replace(BASE, autoscaling=impatient))
    assert run.outcomes == [Outcome.TIMED_OUT]


def test_the_activators_queue_is_bounded(trace: Make) -> None:
    run = ran(trace(*[10.0] * 5), replace(BASE, queue_depth=3))
    assert Counter(run.outcomes) == {Outcome.DRAWN: 3, Outcome.REFUSED: 2}


def test_equal_requests_are_drawn_once(trace: Make) -> None:
    run = ran(trace(10.0, 11.0, 20.0, 10 + 90_000.0, identity=[7, 7, 7, 7]))
    assert run.outcomes == [Outcome.DRAWN, Outcome.JOINED, Outcome.CACHED, Outcome.DRAWN]
    assert run.latencies[1] == pytest.approx(run.latencies[0] - 1.0)
    assert run.latencies[2] == EdgeCache().hit_seconds


def test_a_share_of_repeats_stands_in_for_identities() -> None:
    trace = generate("poisson:rate=1,hours=1", 0)
    run = ran(trace, replace(BASE, edge=EdgeCache(repeat_share=0.5)))
    cached = Counter(run.outcomes)[Outcome.CACHED]
    assert 0.4 < cached / len(trace.at) < 0.6


def test_a_node_that_has_to_be_ordered_delays_the_start_and_stays_for_a_while(trace: Make) -> None:
    pool = Pool(min_nodes=0, max_nodes=1, provision=(60.0, 60.0), pull=20.0, consolidate_after=100.0)
    run = ran(trace(10.0), replace(BASE, pool=pool))
    cold_files = LEAN.page_cache_cold
    assert run.latencies[0] == pytest.approx(60.0 + 20.0 + 3.0 + cold_files + WARM)
    assert len(run.pod_lives) == 1
    assert run.node_lives[0] >= 60.0 + run.pod_lives[0]


def test_models_do_not_share_pods(trace: Make) -> None:
    one = trace(10.0, 15.0)
    two = replace(one, model=np.array([0, 1]), models=("a", "b"))
    assert len(ran(one).pod_lives) == 1
    run = ran(two)
    assert len(run.pod_lives) == 2
    assert run.cold == [True, True]


SLEEPY = replace(BASE, engine_sleeps_after=2.0, autoscaling=replace(BASE.autoscaling, window=60))
HELD = WARM + 2.0 + ENGINE_END  # by an engine that is ready, for one picture


def test_an_engine_that_sleeps_gives_the_device_back_and_starts_again(trace: Make) -> None:
    run = ran(trace(10.0, 25.0), SLEEPY)
    assert run.latencies == pytest.approx([3.0 + WARM, 1.5 + WARM])  # the engine's start, and nothing of the platform's
    assert len(run.pod_lives) == 1
    assert run.engine_seconds == pytest.approx(2.0 + HELD + 1.5 + HELD)


def test_idle_is_counted_from_the_last_answer(trace: Make) -> None:
    answered = 13.0 + WARM
    run = ran(trace(10.0, answered + 1.9, answered + 1.9 + WARM + 1.9), SLEEPY)
    assert run.latencies[1:] == pytest.approx([WARM, WARM])
    assert run.engine_seconds == pytest.approx(2.0 + WARM + 1.9 + WARM + 1.9 + HELD)


def test_idle_is_counted_from_readiness_where_nobody_asked(trace: Make) -> None:
    kept = replace(SLEEPY, autoscaling=replace(SLEEPY.autoscaling, min_scale=1))
    run = ran(trace(50.0), kept)
    assert run.latencies == pytest.approx([1.5 + WARM])
    assert run.engine_seconds == pytest.approx(2.0 + ENGINE_END + 1.5 + WARM)


def test_a_long_request_keeps_the_engine_awake(trace: Make) -> None:
    run = ran(trace(10.0, 12.0, steps=1000), SLEEPY)
    assert run.engine_seconds == pytest.approx(10.0 + run.latencies[0] - 11.0 + 2.0 + ENGINE_END, abs=0.1)


def test_the_next_engine_starts_when_the_last_has_gone(trace: Make) -> None:
    ends = 13.0 + WARM + 2.0
    run = ran(trace(10.0, ends + 0.2), SLEEPY)
    assert run.latencies[1] == pytest.approx(ENGINE_END - 0.2 + 1.5 + WARM)
    assert run.engine_seconds == pytest.approx(2.0 + HELD + 1.5 + HELD)


def test_all_who_wait_for_an_engine_share_its_start(trace: Make) -> None:
    run = ran(trace(10.0, 30.0, 30.4, 31.2), SLEEPY)
    together = 0.016 + 30 * 0.01555 + LEAN.decode.table(3)[3] + 0.045
    assert run.latencies[1:] == pytest.approx([1.5 + together, 1.1 + together, 0.3 + together])


def test_an_engine_that_was_woken_has_rehearsed_nothing(trace: Make) -> None:
    awake = replace(SLEEPY, predictor=replace(BASE.predictor, steps=LEAN.steps))
    run = ran(trace(10.0, 15.5, 60.0, images=4), awake)
    # 29.4 ms a step until the rehearsal that began with the fifth is over, then 19.6.
    fresh, outside = 28 * 0.0294 + 2 * 0.01961, 0.016 + 0.043 + 0.045
    assert run.latencies == pytest.approx([3.0 + fresh + outside, 30 * 0.01961 + outside, 1.5 + fresh + outside])


def test_what_is_kept_is_paid_for_to_the_end(trace: Make) -> None:
    run = ran(trace(10.0, 1000.0), CONFIGURATIONS["always-on"]())
    assert run.cold == [False, False]
    assert sum(run.pod_lives) == pytest.approx(1000.0 + run.latencies[1])


def test_a_seed_fixes_everything_and_another_changes_something() -> None:
    trace = generate("diurnal:rate=0.05,hours=6", 3)
    one, again, other = (ran(trace, CONFIGURATIONS["sdzero"](), seed) for seed in (1, 1, 2))
    assert (one.latencies, one.pod_lives) == (again.latencies, again.pod_lives)
    assert one.latencies != other.latencies


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(st.floats(0, 400), st.integers(1, 8)), min_size=1, max_size=40),
    st.sampled_from([0, 1, 3]),
    st.sampled_from([1, 4, 16]),
    st.sampled_from([0, 1, 3]),
    st.sampled_from([None, (0, 2), (1, 1)]),
    st.sampled_from(["lean", "plain"]),
    st.sampled_from([None, 0.2, 5.0]),
)
def test_every_request_has_one_outcome_and_no_gpu_is_lost(
    drawn: list[tuple[float, int]],
    min_scale: int,
    concurrency: int,
    max_scale: int,
    nodes: tuple[int, int] | None,
    engine: str,
    sleeps_after: float | None,
) -> None:
    drawn = sorted(drawn)
    at = np.array([when for when, _ in drawn])
    count = len(at)
    trace = Trace(
        name="drawn",
        at=at,
        images=np.array([images for _, images in drawn]),
        steps=np.full(count, 20),
        model=np.zeros(count, int),
        models=("all",),
    )
    configuration = Configuration(
        name="drawn",
        predictor=LEAN if engine == "lean" else PLAIN,
        autoscaling=Autoscaling(
            container_concurrency=concurrency, window=6, min_scale=min(min_scale, max_scale or 3), max_scale=max_scale
        ),
        pool=Pool() if nodes is None else Pool(min_nodes=nodes[0], max_nodes=nodes[1]),
        engine_sleeps_after=sleeps_after,
    )
    run = ran(trace, configuration)
    assert Outcome.OPEN not in run.outcomes
    assert sum(change for _, change in run.holds) == run_kept(run)
    assert run.busy_seconds <= run.engine_seconds + 1e-6
    assert run.engine_seconds <= sum(run.pod_lives) + 1e-6
    held = 0
    for _, change in run.holds:
        held += change
        assert held >= 0
        assert nodes is None or held <= nodes[1]


def run_kept(run: Run) -> int:
    """Pods that were still there at the end: those that are booked and never let go."""
    return len(run.pod_lives) - sum(change < 0 for _, change in run.holds)
