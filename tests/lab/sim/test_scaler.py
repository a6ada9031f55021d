from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from predictor.lab.sim.kpa import Autoscaling
from predictor.lab.sim.scaler import UNKNOWN, Scaler, Status, Verdict

SPEC = Autoscaling(container_concurrency=1, window=6)


def active(spec: Autoscaling, since: float = 0.0) -> Scaler:
    """A scaler whose only pod became ready at `since`, behind the activator."""
    scaler = Scaler(spec)
    # Whatever changes the status is looked at once more.
    assert scaler.reconcile(since, 1, -1.0, 0) == Verdict(1, 0.0)
    assert scaler.status is Status.ACTIVATING
    assert scaler.reconcile(since, 1, -1.0, 1) == Verdict(1, 0.0)
    assert scaler.status is Status.ACTIVE
    assert scaler.reconcile(since, 1, -1.0, 1) == Verdict(1)
    return scaler


def test_a_wish_is_kept_within_its_bounds() -> None:
    scaler = Scaler(replace(SPEC, min_scale=2, max_scale=5))
    assert scaler.reconcile(0.0, 9, -1.0, 0).replicas == 5
    assert scaler.reconcile(0.0, 0, -1.0, 0).replicas == 2
    assert scaler.reconcile(0.0, 4, -1.0, 0).replicas == 4


def test_without_a_decision_nothing_changes() -> None:
    assert Scaler(SPEC).reconcile(0.0, UNKNOWN, -1.0, 0) == Verdict(None)


def test_an_activation_is_kept_though_nobody_waits_any_more() -> None:
    scaler = Scaler(SPEC)
    scaler.reconcile(0.0, 1, -1.0, 0)
    assert scaler.reconcile(10.0, 0, -1.0, 0) == Verdict(None, 620.0)
    assert scaler.status is Status.ACTIVATING
    assert scaler.reconcile(630.0, 0, -1.0, 0).replicas == 0  # progress deadline and 30 s
    assert scaler.status is Status.INACTIVE


def test_active_stays_for_a_window_then_turns_inactive_then_goes_by_the_fast_path() -> None:
    scaler = active(SPEC, since=100.0)
    assert scaler.reconcile(104.0, 0, -1.0, 1) == Verdict(1, 2.0)
    # Its own change of status has it looked at again: on a cluster 31 of 31 pods went within the same tick.
    assert scaler.reconcile(106.0, 0, -1.0, 1) == Verdict(None, 0.0)
    assert scaler.status is Status.INACTIVE
    # It has been behind the activator since second 0, longer than the grace period of 30 s.
    assert scaler.reconcile(106.0, 0, -1.0, 1) == Verdict(0)


def test_outside_the_activators_path_the_grace_period_begins_when_it_comes_back() -> None:
    scaler = active(SPEC)
    scaler.reconcile(10.0, 1, 5.0, 1)
    assert scaler.proxy_since is None
    assert scaler.reconcile(100.0, 0, 5.0, 1) == Verdict(None, 0.0)
    assert scaler.reconcile(100.0, 0, 5.0, 1) == Verdict(None, 30.0)
    assert scaler.reconcile(130.0, 0, 5.0, 1) == Verdict(0)


def test_retention_keeps_the_last_pod() -> None:
    scaler = active(replace(SPEC, scale_to_zero_pod_retention_period=120))
    assert scaler.reconcile(50.0, 0, -1.0, 1).replicas is None
    assert scaler.reconcile(53.0, 0, -1.0, 1) == Verdict(None, 117.0)
    assert scaler.reconcile(170.0, 0, -1.0, 1) == Verdict(0)


def test_a_request_brings_an_inactive_revision_back() -> None:
    scaler = active(replace(SPEC, scale_to_zero_pod_retention_period=120))
    scaler.reconcile(50.0, 0, -1.0, 1)
    assert scaler.reconcile(60.0, 1, -1.0, 1).replicas == 1
    assert (scaler.status, scaler.since) == (Status.ACTIVE, 60.0)


def test_zero_can_be_forbidden() -> None:
    assert active(replace(SPEC, enable_scale_to_zero=False)).reconcile(50.0, 0, -1.0, 1) == Verdict(1)


@given(st.floats(0.0, 1e6), st.sampled_from([0, 45.5]))
def test_whoever_comes_back_when_told_to_does_not_come_in_vain(since: float, retention: float) -> None:
    scaler = active(replace(SPEC, scale_to_zero_pod_retention_period=retention), since)
    now = since + 1 / 3
    for _ in range(5):
        verdict = scaler.reconcile(now, 0, -1.0, 1)
        if verdict.replicas == 0:
            break
        assert verdict.again is not None
        now += verdict.again
    assert verdict.replicas == 0
    # It has been behind the activator for as long as it has been active.
    assert now <= since + max(SPEC.window + retention, SPEC.scale_to_zero_grace_period) + 1e-3
