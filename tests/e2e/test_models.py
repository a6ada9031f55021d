"""Two models in one release, and a new revision that gets a tenth of the requests."""

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
    picture_of(ask(client, OPENAI, order(SQUARE, 1)))
    pod = release.pod("predictor")
    changed = {"annotations": {"e2e": "canary"}}
    release.upgrade("predictor", models=[model(canaryTrafficPercent=10, predictor=changed)])
    for seed in range(2, REQUESTS + 2):
        SQUARE.assert_in(picture_of(ask(client, OPENAI, order(SQUARE, seed, num_inference_steps=10))))
    # The new revision's pods come and go between its few requests; the old one has the same pod all the time.
    assert pod in {one["metadata"]["name"] for one in release.pods("predictor")}
    to_the_new = REQUESTS + 1 - float(release.in_pod(pod, "python", "-c", COUNT))
    facts["requests to the new revision"] = f"{to_the_new:.0f} of {REQUESTS}"
    assert LEAST <= to_the_new <= MOST
