"""A pod that has nothing left to do is gone at once, instead of after queue-proxy's drain of 30 s."""

import time
from collections.abc import Callable

import pytest

from tests.e2e.asking import OPENAI, SQUARE, ask, order, picture_of
from tests.e2e.cluster import Object, switch_on
from tests.e2e.following import LONG, begin
from tests.e2e.release import WINDOW, Release
from tests.e2e.sightings import Sightings

QUEUE_PROXY_DRAINS = 30.0  # seconds, whatever anybody sets


@pytest.fixture(scope="module")
def ending(new_release: Callable[..., Release]) -> Release:
    """A release whose predictor ends its drains."""
    switch_on("config-features", "kubernetes.podspec-shareprocessnamespace", "enabled")
    release = new_release("drain", predictor={"endDrain": True})
    release.install()
    return release


def terminating(pod: Object) -> bool:
    return "deletionTimestamp" in pod["metadata"]


def test_an_idle_pod_does_not_wait_for_the_end_of_its_drain(ending: Release, facts) -> None:
    service = ending.service("predictor")
    with Sightings(ending.namespace) as seen:
        for seed in range(1, 4):
            answer = ask(ending.client(), OPENAI, order(SQUARE, seed))
            SQUARE.assert_in(picture_of(answer))
            seen.wait_for_pod(service, terminating, "is told to go")
            told = time.time()
            seen.wait_for_zero(service)
            gone = time.time()
            facts[f"told to go → gone, {seed}"] = f"{gone - told:.1f} s"
            facts[f"last answer → gone with a window of {WINDOW} s, {seed}"] = f"{gone - answer.ended:.1f} s"
            assert gone - told < QUEUE_PROXY_DRAINS / 2


def test_a_pod_that_draws_is_gone_when_the_picture_is_done(ending: Release, facts) -> None:
    service = ending.service("predictor")
    with Sightings(ending.namespace) as seen:
        job = begin(ending.client(), SQUARE, 11, **LONG)
        job.until_named("progress")
        pod = ending.pod("predictor")
        ending.delete_pod(pod, "--wait=false")
        job.assert_done_and_right()
        done = time.time()
        steps = [data["step"] for name, data in job.told if name == "progress"]
        assert steps == sorted(steps), "nothing was drawn twice"
        seen.wait(lambda: pod not in {one["metadata"]["name"] for one in seen.now("Pod", service)}, 60, "the pod gone")
        facts["done → gone"] = f"{time.time() - done:.1f} s"
