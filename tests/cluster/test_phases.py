from collections.abc import Sequence

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from predictor.cluster.marks import LIFE, NOTICED, Mark
from predictor.cluster.objects import Deployment, Event, Meta, Pod, read
from predictor.cluster.phases import Change, Life, Standing, Starts, marks_of, moments, phases
from predictor.core.timeline import chart, span
from tests.cluster.recordings import NAMES, changes


class Replayed:
    """Everything that came of some changes."""

    def __init__(self, given: Sequence[Change]) -> None:
        self.starts = Starts()
        self.marks: list[Mark] = []
        self.lives: list[Life] = []
        self.standings: list[Standing] = []
        for change in given:
            self.marks += self.starts.take(change)
            self.lives += [life for life in self.starts.lives.values() if life not in self.lives]
            standing = self.starts.standing()
            if standing is not None and standing not in self.standings:
                self.standings.append(standing)

    def texts(self, name: str) -> list[str]:
        return [mark.text for mark in self.marks if mark.name == name]


def test_a_start_from_zero_and_back():
    plain = Replayed(changes("plain"))
    told = [(mark.name, mark.container) for mark in plain.marks]
    main, proxy = "user-container", "queue-proxy"
    assert told == [
        ("decision", ""),
        ("pod", ""),
        ("scheduled", ""),
        ("pulled", main),
        ("created", main),
        ("started", main),
        ("pulled", proxy),
        ("created", proxy),
        ("started", proxy),
        ("sandbox", ""),
        ("ready", ""),
        ("endpoint", ""),
        ("scaled_to_zero", ""),
        ("terminating", ""),
        ("stopped", proxy),
        ("stopped", main),
        ("gone", ""),
        ("zero", ""),
    ]
    assert [standing.phase for standing in plain.standings] == ["scheduling", "preparing", "starting", "ready"]
    assert plain.texts("decision") == ["replicas 0 → 1"]
    assert plain.texts("pulled")[0] == 'Container image "dev.local/sample:v1" already present on machine'
    assert plain.starts.standing() is None

    (life,) = plain.lives
    assert life.watched
    assert [mark.name for mark in life.chain] == [name for name in LIFE if name != "initialized"]
    found = phases(life)
    assert [phase.name for phase in found] == [mark.name for mark in life.chain[1:]]
    assert sum(phase.seconds for phase in found) == pytest.approx(span(marks_of(life))) == pytest.approx(2.02, abs=0.01)
    assert all(phase.process == "cluster" for phase in found)
    assert chart(found).count("\n") == 1 + len(found)


def test_the_kubelet_notices_the_sandbox_late_and_the_phases_know():
    (life,) = Replayed(changes("plain")).lives
    at = dict(zip((mark.name for mark in life.chain), moments(life.chain), strict=True))
    told = {mark.name: mark for mark in life.chain}
    # It is said to have been there a second after the container that runs in it was started.
    assert told["sandbox"].reported > told["started"].reported
    assert at["scheduled"] <= at["sandbox"] <= at["pulled"] <= at["started"] < told["sandbox"].reported


def test_who_waits_for_a_gpu_learns_it_in_the_schedulers_words():
    capacity = Replayed(changes("capacity"))
    assert (
        capacity.texts("capacity")
        == [
            "0/1 nodes are available: 1 Insufficient nvidia.com/gpu. no new claims to deallocate, "
            "preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod."
        ]
        * 2
    )
    assert Standing("waiting_for_capacity", capacity.texts("capacity")[0]) in capacity.standings
    first, second = capacity.lives
    assert first.ready is None
    assert second.ready is not None


def test_a_pod_deleted_in_its_start_is_told_and_its_successor_counts_from_the_same_decision():
    capacity = Replayed(changes("capacity"))
    first, second = capacity.lives
    assert [(mark.pod, mark.text) for mark in capacity.marks if mark.name == "gone"] == [
        (first.name, "before it was ready"),
        (second.name, ""),
    ]
    assert first.zero is second.zero is capacity.marks[0]
    assert capacity.marks[0].name == "decision"
    # Between the two there was no pod, but the wish for one.
    assert [mark.name for mark in capacity.marks].count("zero") == 1
    assert capacity.marks[-1].name == "zero"


def test_an_image_that_cannot_be_pulled():
    absent = Replayed(changes("absent"))
    assert [text.partition(":")[0] for text in absent.texts("image")] == ["ErrImagePull", "ImagePullBackOff"]
    assert 'failed to resolve reference "dev.local/absent:v1"' in absent.texts("image")[0]
    assert [standing.phase for standing in absent.standings][:4] == [
        "scheduling", "preparing", "pulling_image", "image_error",
    ]  # fmt: skip
    assert absent.starts.standing().phase == "image_error"
    (life,) = absent.lives
    assert life.ready is None
    assert phases(life)[-1].name == "sandbox"


def test_a_container_that_crashes_again_and_again():
    crash = Replayed(changes("crash"))
    assert crash.texts("crashed") == ["exit code 1"] * 3
    main = [mark for mark in crash.marks if mark.name == "started" and mark.container == "user-container"]
    assert len(main) == 3
    assert [text.partition(" rest")[0] for text in crash.texts("container")] == [
        f"CrashLoopBackOff: back-off {seconds}s" for seconds in (10, 20, 40)
    ]
    assert crash.starts.standing() == Standing("crashing", "exit code 1")


def test_a_pod_that_was_ready_before_anybody_watched_has_no_start_to_tell():
    ready = [change for change in changes("plain") if any(mark.name == "ready" for mark in Starts().take(change))]
    listed = Change(object=ready[0].object, received=ready[0].received + 100, listed=True)
    replayed = Replayed([listed])
    (life,) = replayed.lives
    assert not life.watched


def test_what_is_seen_through_a_list_alone_is_late_by_no_more_than_the_second_that_was_reported():
    ready = next(c for c in changes("plain") if any(mark.name == "ready" for mark in Starts().take(c)))
    (life,) = Replayed([Change(object=ready.object, received=ready.received + 1000, listed=True)]).lives
    created = ready.object.metadata.creation_timestamp.timestamp()
    assert created <= moments(life.chain)[0] <= created + 1


def test_several_pods_of_one_decision():
    given = changes("plain")
    twins = [
        msgspec.structs.replace(change, object=msgspec.structs.replace(change.object, metadata=_twin(change.object)))
        for change in given
        if isinstance(change.object, Pod)
    ]
    both = Replayed(sorted([*given, *twins], key=lambda change: change.received))
    assert len(both.lives) == 2
    assert both.lives[0].zero is both.lives[1].zero is both.marks[0]
    assert [mark.name for mark in both.marks].count("ready") == 2
    assert both.marks[-1].name == "zero"


def _twin(pod: Pod) -> Meta:
    return msgspec.structs.replace(pod.metadata, uid="twin", name="twin")


def test_no_pod_can_be_made_and_why():
    condition = {
        "type": "ReplicaFailure",
        "status": "True",
        "reason": "FailedCreate",
        "message": 'pods "x" is forbidden: exceeded quota: gpus',
        "lastTransitionTime": "2026-01-02T03:04:05Z",
    }
    meta = {"uid": "d", "name": "x", "resourceVersion": "1"}
    asleep = read({"metadata": meta, "spec": {"replicas": 0}}, Deployment)
    awake = read({"metadata": meta, "spec": {"replicas": 1}, "status": {"conditions": [condition]}}, Deployment)
    starts = Starts()
    assert starts.take(Change(object=asleep, received=0, listed=True)) == []
    told = starts.take(Change(object=awake, received=5))
    assert [(mark.name, mark.text) for mark in told] == [
        ("decision", "replicas 0 → 1"),
        ("no_pod", condition["message"]),
    ]
    assert starts.take(Change(object=awake, received=6)) == []
    assert starts.standing() == Standing("no_pod", condition["message"])


def test_warnings_are_told_and_what_the_pod_says_itself_is_not_told_twice():
    def event(reason: str, type: str = "Warning") -> Event:
        about = {"kind": "Pod", "uid": "u", "name": "p"}
        return read({"involvedObject": about, "type": type, "reason": reason, "message": "no such secret"}, Event)

    starts = Starts()
    for reason in ("FailedMount", "FailedScheduling", "Unhealthy"):
        starts.take(Change(object=event(reason), received=1))
    starts.take(Change(object=event("Killing", "Normal"), received=1))
    told = starts.take(Change(object=read({"metadata": {"uid": "u", "name": "p"}}, Pod), received=2))
    assert [mark.text for mark in told if mark.name == "warning"] == ["FailedMount: no such secret"]


@pytest.mark.parametrize("name", NAMES)
@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_no_order_and_no_repetition_breaks_it_and_no_mark_comes_twice(name, data):
    given = changes(name)
    picked = data.draw(st.lists(st.sampled_from(range(len(given))), max_size=120))
    replayed = Replayed([given[i] for i in picked])
    keys = [(m.name, m.pod, m.container, m.reported, m.text) for m in replayed.marks if m.pod]
    assert len(keys) == len(set(keys))
    for life in replayed.lives:
        times = moments(life.chain)
        assert times == sorted(times)
        assert all(phase.seconds >= 0 for phase in phases(life))
        assert isinstance(chart(phases(life)), str)


@pytest.mark.parametrize("name", NAMES)
@settings(deadline=None, max_examples=60)
@given(seed=st.randoms(use_true_random=False))
def test_four_watches_tell_the_same_however_they_are_interleaved(name, seed):
    given = changes(name)
    queues = {}
    for change in given:
        queues.setdefault(type(change.object), []).append(change)
    mixed = []
    while queues:
        kind = seed.choice(sorted(queues, key=lambda kind: kind.__name__))
        mixed.append(queues[kind].pop(0))
        if not queues[kind]:
            del queues[kind]

    def of_pods(replayed: Replayed) -> set[tuple[object, ...]]:
        # Of what comes after a pod has gone, nothing is told; `started` has one of two sources.
        return {
            (m.name, m.pod, m.container) for m in replayed.marks if m.pod and m.name in ("pod", "scheduled", "gone")
        }

    assert of_pods(Replayed(mixed)) == of_pods(Replayed(given))


seconds = st.floats(0, 30, allow_nan=False)


@given(
    st.lists(st.tuples(st.sampled_from(LIFE), seconds, seconds, st.booleans()), min_size=1, unique_by=lambda t: t[0])
)
def test_a_guess_is_never_before_the_truth_and_never_after_its_reception(drawn):
    drawn.sort(key=lambda one: LIFE.index(one[0]))
    truth, chain = 1e9, []
    truths = []
    for name, later, delay, reports in drawn:
        truth += later
        truths.append(truth)
        noticed = truth + delay / 2 if name in NOTICED else truth
        chain.append(Mark(name=name, received=truth + delay, reported=float(int(noticed)) if reports else None))
    guesses = moments(chain)
    assert guesses == sorted(guesses)
    for true, guess, mark in zip(truths, guesses, chain, strict=True):
        assert true - 1e-6 <= guess <= mark.received + 1e-6
        if mark.reported is not None:
            assert guess <= mark.reported + 1 + 1e-6


@given(st.lists(st.tuples(seconds, st.none() | seconds), min_size=1, max_size=len(LIFE)))
def test_clocks_that_disagree_still_give_an_order(drawn):
    chain = [Mark(name=name, received=r, reported=k) for name, (r, k) in zip(LIFE, drawn, strict=False)]
    assert moments(chain) == sorted(moments(chain))
