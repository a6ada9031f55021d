"""Who has the wrong picture."""

from collections import Counter

import numpy as np
import pytest

from loadtest.golden import picture
from loadtest.pictures import TOLERANCE, judged, pixels

PLAIN = np.full((8, 8, 3), 100, np.uint8)
STORE = {"plain": PLAIN, "rounded": PLAIN + TOLERANCE, "other": PLAIN + 3 * TOLERANCE, "small": PLAIN[:4]}


def outcomes(found: list) -> dict[int, str]:
    return {sample.index: sample.outcome for sample in judged(found, STORE.get)}


def test_equal_requests_show_equal_pixels_but_for_rounding(sample):
    digests = ["plain", "plain", "rounded", "other", "small", "unknown"]
    found = [sample(n, identity=1, digests=digest) for n, digest in enumerate(digests)]
    assert outcomes(found) == {0: "ok", 1: "ok", 2: "ok", 3: "wrong", 4: "wrong", 5: "wrong"}


def test_the_picture_that_most_agree_with_is_the_right_one(sample):
    found = [sample(n, identity=1, digests="other" if n else "small") for n in range(3)]
    assert Counter(outcomes(found).values()) == {"ok": 2, "wrong": 1}
    assert outcomes(found)[0] == "wrong"


def test_another_requests_picture_is_wrong_and_its_owner_is_not(sample):
    found = [
        sample(0, identity=1, digests="mine"),
        sample(1, identity=2, digests="mine"),
        sample(2, identity=3, digests="third"),
    ]
    assert outcomes(found) == {0: "ok", 1: "wrong", 2: "ok"}


def test_one_job_that_answers_two_requests_is_a_duplicate_unless_they_are_the_same(sample):
    found = [
        sample(0, identity=1, digests="x", job="j"), sample(1, identity=1, digests="x", job="j"),
        sample(2, identity=2, digests="y", job="j"),
    ]  # fmt: skip
    assert outcomes(found) == {0: "ok", 1: "ok", 2: "duplicated"}


def test_all_pictures_of_a_request_count(sample):
    found = [sample(n, identity=1, images=2, digests=d) for n, d in enumerate(["plain plain", "plain rounded"])]
    found.append(sample(2, identity=1, images=2, digests="plain other"))
    assert outcomes(found) == {0: "ok", 1: "ok", 2: "wrong"}


def test_what_was_not_answered_is_not_judged(sample):
    assert outcomes([sample(0, outcome="lost"), sample(1, outcome="timeout", identity=0)]) == {0: "lost", 1: "timeout"}


@pytest.mark.parametrize("size", ["1x1", "64x48"])
def test_the_golden_servers_pictures_are_pictures(size):
    width, height = map(int, size.split("x"))
    shown = pixels(picture("a red circle", 7, size))
    assert shown.shape == (height, width, 3)
    assert not np.array_equal(shown, pixels(picture("a red circle", 8, size)))
