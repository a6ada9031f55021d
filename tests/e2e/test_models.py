"""Two models in one release, and a new revision that gets a tenth of the requests."""

import itertools
from collections.abc import Callable

from tests.e2e.asking import OPENAI, SQUARE, STAR, ask, order, picture_of
from tests.e2e.release import MODEL, Release, model
from tests.e2e.sightings import Sightings

REQUESTS = 100
# Of 100 requests at 10 %, this many go to the new revision, in 999 of 1000 runs.
LEAST, MOST = 2, 21
COUNT = """
import re, urllib.request
metrics = urllib.request.urlopen("http://127.0.0.1:8080/metrics").read().decode()
print(sum(float(count) for count in re.findall(r'^sdzero_requests_total{.*} (.+)$', metrics, re.M)))
"""


def test_two_models_of_a_release_wake_and_sleep_each_for_itself(new_release: Callable[..., Release]) -> None:
    release = new_release("two", models=[model(), model("forms")])
    release.install()
    with Sightings(release.namespace) as seen:
        services = {name: release.service("predictor", name) for name in (MODEL, "forms")}
        for service in services.values():
            seen.wait_for_zero(service)
        for name, other, drawing in ((MODEL, "forms", SQUARE), ("forms", MODEL, STAR)):
            answer = ask(release.client(model=name), OPENAI, order(drawing, 1, model=name))
            drawing.assert_in(picture_of(answer))
            assert seen.now("Pod", services[name])
            assert seen.of(services[other], since=answer.sent) == []
            seen.wait_for_zero(services[name])
        wrong = ask(release.client(model="forms"), OPENAI, order(SQUARE, 2, model=MODEL))
        assert wrong.status == 404


def test_a_canary_gets_a_tenth_of_the_requests(new_release: Callable[..., Release], facts) -> None:
    release = new_release("canary")
    release.install()
    client = release.client()
    changed = {"annotations": {"e2e": "canary"}}
    release.upgrade("predictor", models=[model(canaryTrafficPercent=10, predictor=changed)])
    seeds = itertools.count(1)

    def draw() -> None:
        SQUARE.assert_in(picture_of(ask(client, OPENAI, order(SQUARE, next(seeds), num_inference_steps=10))))

    while not (pod := running_without(release, "canary")):
        draw()
    before = count(release, pod)
    for _ in range(REQUESTS):
        draw()
    # The new revision's pods come and go between its few requests; the old one's stays.
    assert running_without(release, "canary") == pod
    to_the_new = REQUESTS - (count(release, pod) - before)
    facts["requests to the new revision"] = f"{to_the_new:.0f} of {REQUESTS}"
    assert LEAST <= to_the_new <= MOST


def running_without(release: Release, annotation: str) -> str | None:
    """The name of a predictor's pod without this value of the annotation `e2e`, that is not on its way out."""
    for pod in release.pods("predictor"):
        metadata = pod["metadata"]
        if metadata["annotations"].get("e2e") != annotation and "deletionTimestamp" not in metadata:
            return str(metadata["name"])
    return None


def count(release: Release, pod: str) -> float:
    """Requests that a predictor's pod has answered."""
    return float(release.in_pod(pod, "python", "-c", COUNT))
