import random

import pytest

from predictor.lab.sim.cluster import Cluster, Node, Pool


def cluster(**pool: object) -> Cluster:
    return Cluster(Pool(**{"provision": (60.0, 60.0), **pool}), random.Random(0))  # type: ignore[arg-type]


def test_an_unbounded_pool_always_has_a_gpu() -> None:
    free = cluster()
    placements = [free.place(5.0, "a") for _ in range(100)]
    assert all(placement and placement.at == 5.0 and not placement.cold_files for placement in placements)
    assert free.lives(100.0) == []


def test_kept_nodes_have_everything_at_hand_and_are_up_all_the_time() -> None:
    kept = cluster(min_nodes=2, max_nodes=2, gpus_per_node=2)
    placements = [kept.place(5.0, "a") for _ in range(5)]
    assert [placement is not None for placement in placements] == [True] * 4 + [False]
    assert placements[0] is not None
    assert (placements[0].at, placements[0].cold_files) == (5.0, False)
    assert kept.lives(100.0) == [100.0, 100.0]


def test_an_ordered_node_pulls_the_image_once_and_reads_each_models_files_once() -> None:
    grown = cluster(min_nodes=0, max_nodes=1, gpus_per_node=4, pull=30.0)
    seen = [grown.place(0.0, "a"), grown.place(70.0, "a"), grown.place(80.0, "b")]
    assert [(p.bound, p.at, p.cold_files) for p in seen if p] == [
        (60.0, 90.0, True),
        (70.0, 70.0, False),
        (80.0, 80.0, True),
    ]


def test_an_idle_node_goes_after_its_time_and_not_if_it_was_used_meanwhile() -> None:
    grown = cluster(min_nodes=0, max_nodes=1, consolidate_after=100.0)
    placement = grown.place(0.0, "a")
    assert placement is not None
    node = placement.node
    assert isinstance(node, Node)
    assert grown.release(80.0, node)
    assert grown.place(120.0, "a") is not None
    grown.retire(180.0, node)
    assert grown.nodes == [node]
    assert grown.release(200.0, node)
    grown.retire(300.0, node)
    assert grown.lives(1000.0) == [300.0]


@pytest.mark.parametrize(
    "pool",
    [{"gpus_per_node": 0}, {"min_nodes": 2, "max_nodes": 1}, {"max_nodes": 1}, {"min_nodes": 0, "max_nodes": 0}],
)
def test_a_pool_that_cannot_be_is_refused(pool: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="allowed"):
        Pool(**pool)  # type: ignore[arg-type]
