"""What dies, is missing or is broken under an acknowledged job: it gets its one outcome all the same."""

import json
import time
from collections.abc import Callable

import pytest

from tests.e2e.asking import OPENAI, SQUARE, STAR, ask, order, picture_of
from tests.e2e.cluster import apply, eventually, get, kubectl, read_manifest
from tests.e2e.following import LONG, Followed, begin
from tests.e2e.release import Release, model
from tests.e2e.settings import Settings
from tests.e2e.sightings import Sightings

VOLUME = "E2E_HOST_VOLUMES names a folder of the node for one"
KILL_ENGINE = """
import os, pathlib, signal
parents = {}
for stat in pathlib.Path("/proc").glob("[0-9]*/stat"):
    pid, _, rest = stat.read_text().partition(" (")
    parents[int(pid)] = int(rest.rpartition(") ")[2].split()[1])
(engine,) = [pid for pid, parent in parents.items() if parent == 1]
os.kill(engine, signal.SIGKILL)
"""


@pytest.fixture(scope="module")
def release(new_release: Callable[..., Release], volume: Callable[[str], dict[str, object]]) -> Release:
    """A release whose predictors die, with a volume for its edge where one can be had."""
    release = new_release("faults")
    release.values["edge"] = volume(release.namespace)
    release.install()
    return release


@pytest.fixture
def under_way(release: Release, request: pytest.FixtureRequest) -> Followed:
    """A long job that a predictor is drawing."""
    seed = 100 + len(request.node.name)
    job = begin(release.client(), SQUARE, seed, **LONG)
    job.until_named("progress")
    return job


def test_a_pod_is_killed_while_it_draws(release: Release, under_way: Followed) -> None:
    release.delete_pod(release.pod("predictor"), "--grace-period=0", "--force")
    under_way.assert_done_and_right()


def test_the_engine_is_killed_while_it_draws(release: Release, under_way: Followed) -> None:
    pod = release.pod("predictor")
    release.in_predictor("python", "-c", KILL_ENGINE)
    under_way.assert_done_and_right()
    assert release.pod("predictor") == pod, "the pod was not needed again"


def test_a_pod_that_is_drained_finishes_what_it_draws(release: Release, under_way: Followed, facts) -> None:
    pod = release.pod("predictor")
    release.delete_pod(pod, "--wait=false")
    under_way.assert_done_and_right()
    steps = [data["step"] for name, data in under_way.told if name == "progress"]
    assert steps == sorted(steps), "nothing was drawn twice"
    eventually(lambda: pod not in {item["metadata"]["name"] for item in release.pods("predictor")}, 120, "it is gone")


def test_an_edge_is_restarted_while_the_predictor_starts(
    release: Release, volume: Callable[[str], dict[str, object]], facts
) -> None:
    if not release.values["edge"]:
        pytest.skip(f"no volume for the edge: {VOLUME}")
    with Sightings(release.namespace) as seen:
        seen.wait_for_zero(release.service("predictor"))
        edge = release.pod("transformer")
        job = begin(release.client(), STAR, 7, **LONG)
        seen.wait_for_pod(release.service("predictor"), lambda _: True, "was woken")
        release.delete_pod(edge, "--grace-period=0", "--force")
        job.assert_done_and_right()
        assert release.pod("transformer") != edge
    facts["jobs lost"] = 0


def test_no_gpu_is_free_and_the_client_is_told_so(
    new_release: Callable[..., Release], settings: Settings, facts
) -> None:
    free = {item["metadata"]["name"]: item["status"]["allocatable"].get(settings.gpu) for item in get("nodes")["items"]}
    counts = [int(count) for count in free.values() if count]
    if len(counts) != 1:
        pytest.skip(f"needs one node that offers {settings.gpu}; there are {len(counts)}")
    release = new_release("scarce", predictor={"gpu": {"count": 1, "resource": settings.gpu}})
    values = {"image": settings.edge_image, "resource": settings.gpu, "count": str(counts[0])}
    apply(release.namespace, json.loads(read_manifest("holder.json", **values)))
    kubectl("wait", "pod/holder", "--for=condition=Ready", "-n", release.namespace, "--timeout=60s")
    release.install()
    job = begin(release.client(), SQUARE, 1)
    told = job.until(lambda _, data: data.get("phase") == "waiting_for_capacity", "it waits for capacity", 60)
    facts["the client is told"] = told
    kubectl("delete", "pod", "holder", "-n", release.namespace)
    job.assert_done_and_right()


def test_a_broken_model_is_a_problem_and_a_rollback_mends_it(release: Release, facts) -> None:
    if not release.values["edge"]:
        pytest.skip(f"no volume for a model's folder with nothing in it: {VOLUME}")
    claim = release.claim()
    nothing = {"baked": False, "pvc": {"claim": claim, "path": "nothing"}}
    release.upgrade("predictor", models=[model(source=nothing)])
    began = time.monotonic()
    broken = ask(release.client(), OPENAI, order(SQUARE, 11), {"X-Request-Deadline": f"{time.time() + 60:.0f}"})
    assert broken.status in (503, 504), broken.body
    facts["the client is told"] = told = broken.json["error"]["message"]
    assert told.endswith("the start was seen last: crashing")
    facts["after"] = f"{time.monotonic() - began:.0f} s"
    release.rollback("predictor")
    SQUARE.assert_in(picture_of(ask(release.client(), OPENAI, order(SQUARE, 12))))


def test_nothing_acknowledged_is_left_over(release: Release, facts) -> None:
    """Every job of this file has ended, and no other is there."""
    jobs = release.client().get("/v1/jobs", params={"limit": 100}).json()["data"]
    assert [job for job in jobs if job["state"] == "active"] == []
    facts["jobs"] = len(jobs)
