import pytest
from hypothesis import given
from hypothesis import strategies as st

from predictor.edge.wake import FIRST_GUESS, SLACK, Watch


def test_it_sleeps_until_somebody_had_an_answer_and_again_when_nobody_came():
    watch = Watch(idle_seconds=60, cold_start_seconds=30)
    assert watch.sleeps(0)
    watch.sent(0)
    assert not watch.sleeps(5)  # somebody is waking it already
    assert watch.answered(8) == 8
    watch.started(8)
    assert watch.cold_start == 8
    assert not watch.sleeps(100)  # at work, however long that takes
    watch.ended(100, answered=True)
    assert not watch.sleeps(159)
    assert watch.sleeps(160)


def test_who_comes_while_it_starts_waits_for_the_rest_of_the_start():
    watch = Watch(60, 30, cold_starts=[10, 12, 50])
    work = 100 * FIRST_GUESS + SLACK
    assert watch.eta(0, 100) == pytest.approx(12 + work)
    watch.sent(0)
    assert watch.eta(4, 100) == pytest.approx(8 + work)
    assert watch.eta(40, 100) == pytest.approx(1 + work)  # late, and nobody knows by how much
    watch.answered(41)
    assert watch.eta(41, 100) == pytest.approx(work)


def test_a_start_that_came_to_nothing_is_forgotten():
    watch = Watch(60, 30)
    watch.sent(0)
    watch.sent(1)
    watch.ended(5, answered=False)
    assert not watch.sleeps(5)  # the other one still waits
    watch.ended(6, answered=False)
    assert watch.sleeps(6)
    assert watch.cold_start == 30


def test_another_edge_has_seen_it_awake():
    watch = Watch(60, 30)
    watch.seen_awake(100)
    assert not watch.sleeps(159)
    assert watch.sleeps(160)


def test_the_first_request_hears_of_a_start_that_a_question_has_caused():
    watch = Watch(60, 30)
    watch.sent(0)
    watch.sent(2)  # two ask what the model can do
    watch.told(20)
    watch.ended(20, answered=True)
    watch.told(20)
    watch.ended(20, answered=True)
    assert watch.eta(20, 0) == pytest.approx(SLACK)
    watch.sent(21)
    assert watch.answered(22) == 20
    assert watch.answered(23) is None


def test_a_start_of_which_nobody_heard_is_forgotten_with_the_next():
    watch = Watch(60, 30)
    watch.sent(0)
    watch.told(20)
    watch.ended(20, answered=True)
    watch.sent(100)
    assert watch.answered(105) == 5
    assert watch.answered(106) is None


def test_it_surely_sleeps_for_a_moment_after_the_database_has_said_so():
    watch = Watch(60, 30)
    assert not watch.surely_sleeps(10)
    watch.seen_asleep(10)
    assert watch.surely_sleeps(10)
    assert watch.surely_sleeps(10.9)
    assert not watch.surely_sleeps(11)
    watch.sent(10.5)
    assert not watch.surely_sleeps(10.6)


def test_the_pace_is_the_median_of_what_was_measured():
    watch = Watch(60, 30)
    for gpu_seconds in (1, 2, 30):
        watch.spent(gpu_seconds, megapixel_steps=10)
    assert watch.eta(0, 5) == pytest.approx(30 + 5 * 0.2 + SLACK)


@given(
    st.lists(
        st.tuples(st.sampled_from(["send", "answer", "end", "lose"]), st.floats(0, 50)),
        max_size=60,
    )
)
def test_it_never_sleeps_while_somebody_waits_and_always_falls_asleep(events):
    watch, now, out, accepted = Watch(60, 30), 0.0, 0, 0
    for name, seconds in events:
        now += seconds
        if name == "send":
            watch.sent(now)
            out += 1
        elif name == "answer" and accepted < out:
            watch.answered(now)
            accepted += 1
        elif name == "end" and accepted:
            watch.ended(now, answered=True)
            out, accepted = out - 1, accepted - 1
        elif name == "lose" and out > accepted:
            watch.ended(now, answered=False)
            out -= 1
        assert not (out and watch.sleeps(now))
        assert watch.eta(now, 1) >= SLACK
    for _ in range(out):
        watch.ended(now, answered=False)
    assert watch.sleeps(now + 61)
