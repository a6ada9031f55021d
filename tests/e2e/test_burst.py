"""Fifty requests at once, and nobody is awake."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import httpx

from tests.e2e.asking import JOBS, OPENAI, SQUARE, Answer, ask, order, picture_of
from tests.e2e.sightings import Sightings

REQUESTS = 50
PODS = 2


def test_a_burst_at_zero_loses_nothing_and_starts_no_more_pods_than_allowed(new_release, facts) -> None:
    release = new_release("burst", predictor={"scaling": {"maxReplicas": PODS}})
    release.install()
    service = release.service("predictor")
    client = release.client(limits=httpx.Limits(max_connections=REQUESTS))

    def draw(seed: int) -> Answer:
        return ask(client, OPENAI, order(SQUARE, seed))

    with Sightings(release.namespace) as seen, ThreadPoolExecutor(REQUESTS) as pool:
        seen.wait_for_zero(service)
        answers = list(pool.map(draw, range(1, REQUESTS + 1)))
        began = min(answer.sent for answer in answers)
        pods = seen.most_pods(service, since=began)
        seen.wait_for_zero(service)
        pods = max(pods, seen.most_pods(service, since=began))
        seen.assert_complete()
    for answer in answers:
        SQUARE.assert_in(picture_of(answer))
    assert 1 <= pods <= PODS
    listed = client.get(JOBS, params={"limit": 100}).json()["data"]
    assert Counter(job["state"] for job in listed) == {"done": REQUESTS}
    assert {job["id"] for job in listed} == {answer.headers["x-sdzero-job"] for answer in answers}
    facts["pictures"] = len(answers)
    facts["most pods at once"] = f"{pods} of {PODS} allowed"
    facts["all answered after"] = f"{max(answer.ended for answer in answers) - began:.1f} s"
