import random

import pytest

from predictor.lab.sim.edge import Edge, EdgeCache


def test_a_lost_request_takes_its_followers_along_and_the_next_one_is_drawn() -> None:
    edge = Edge(EdgeCache(), random.Random(0))
    assert edge.admit(0.0, 1, 7) is None
    assert edge.admit(1.0, 2, 7) == 0.0
    assert edge.lost(1) == [2]
    assert edge.admit(2.0, 3, 7) is None
    assert edge.drawn(3.0, 3) == []
    assert (edge.hits, edge.joined) == (0, 1)


def test_a_picture_is_kept_for_its_time() -> None:
    edge = Edge(EdgeCache(ttl=10.0, hit_seconds=0.5), random.Random(0))
    edge.admit(0.0, 1, 7)
    edge.drawn(1.0, 1)
    assert edge.admit(10.9, 2, 7) == 0.5
    assert edge.admit(11.0, 3, 7) is None


def test_without_identity_nothing_repeats() -> None:
    edge = Edge(EdgeCache(), random.Random(0))
    assert [edge.admit(0.0, request, None) for request in range(3)] == [None] * 3
    assert edge.drawn(1.0, 0) == []


@pytest.mark.parametrize("wrong", [{"repeat_share": 1.5}, {"ttl": -1.0}])
def test_a_share_or_a_time_that_cannot_be_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="allowed"):
        EdgeCache(**wrong)
