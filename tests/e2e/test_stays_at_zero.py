"""Refused and cached requests end at the edge: watched, the predictor does not move."""

from collections.abc import Callable, Iterator

import httpx
import pytest

from tests.e2e.asking import JOBS, OPENAI, SQUARE, STAR, Answer, ask, order, picture_of
from tests.e2e.release import MODEL, Release
from tests.e2e.sightings import Sightings

V2 = f"/v2/models/{MODEL}/infer"
Asked = Callable[[httpx.Client, str, object], Answer]


@pytest.fixture(scope="module")
def careful(release: Release) -> httpx.Client:
    """A client whose key may wake one GPU an hour; `seen` lets it use that up."""
    return release.client(release.key("--name", "careful", "--tenant", "careful", "--wakes-per-hour", "1"))


@pytest.fixture(scope="module")
def seen(release: Release, careful: httpx.Client) -> Iterator[Sightings]:
    """The namespace, after one picture was made and everything stands at zero again."""
    with Sightings(release.namespace) as seen:
        seen.wait_for_zero(release.service("predictor"))
        picture_of(ask(careful, OPENAI, order(SQUARE, 1)))
        seen.wait_for_zero(release.service("predictor"))
        yield seen


@pytest.fixture
def asleep(release: Release, seen: Sightings) -> Asked:
    """Asks, and sees that nothing moves before the answer is there."""
    service = release.service("predictor")

    def asked(client: httpx.Client, path: str, body: object) -> Answer:
        assert seen.is_at_zero(service)
        answer = ask(client, path, body)
        assert seen.of(service, since=answer.sent) == []
        return answer

    return asked


@pytest.mark.parametrize("path", [OPENAI, JOBS, V2])
def test_a_stranger_wakes_nobody(release: Release, asleep: Asked, path: str) -> None:
    assert asleep(release.stranger(), path, order(STAR, 1)).status == 401


@pytest.mark.parametrize("path", [OPENAI, JOBS, V2])
def test_a_key_that_may_only_read_wakes_nobody(release: Release, asleep: Asked, path: str) -> None:
    reader = release.client(release.key("--name", "reader", "--scopes", "read"))
    assert asleep(reader, path, order(STAR, 1)).status == 403


@pytest.mark.parametrize(
    ("status", "fields"),
    [
        (400, {"num_inference_steps": 0}),
        (400, {"size": "8x8"}),
        (400, {"colour": "red"}),
        (404, {"model": "another"}),
        (413, {"prompt": "x" * 2_000_000}),
    ],
    ids=["a field out of range", "an impossible size", "an unknown field", "another model", "too many bytes"],
)
def test_what_cannot_be_done_wakes_nobody(release: Release, asleep: Asked, status: int, fields: object) -> None:
    assert asleep(release.client(), OPENAI, order(STAR, 1) | fields).status == status


def test_who_has_used_up_a_quota_wakes_nobody(careful: httpx.Client, asleep: Asked) -> None:
    answer = asleep(careful, OPENAI, order(STAR, 2))
    assert (answer.status, answer.json["error"]["code"]) == (429, "wake_refused")


def test_a_finished_picture_is_given_again_while_nobody_is_awake(careful: httpx.Client, asleep: Asked) -> None:
    answer = asleep(careful, OPENAI, order(SQUARE, 1))
    assert answer.headers["x-cache"] == "hit"
    SQUARE.assert_in(picture_of(answer))


def test_the_first_paid_request_is_the_first_that_moves_anything(release: Release, seen: Sightings) -> None:
    """Whatever came before had time to show: nothing moved between the last picture and this one."""
    service = release.service("predictor")
    quiet_since = max(one.at for one in seen.of(service))
    answer = ask(release.client(), OPENAI, order(STAR, 3))
    STAR.assert_in(picture_of(answer))
    (first, *_) = seen.of(service, since=quiet_since + 0.001)
    assert answer.sent < first.at < answer.first_byte
    seen.assert_complete()
