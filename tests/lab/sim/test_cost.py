from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from predictor.lab.sim.breakeven import compared, crossing, points
from predictor.lab.sim.cluster import Pool
from predictor.lab.sim.configurations import CONFIGURATIONS
from predictor.lab.sim.cost import Price, bill, bill_run, read_prices
from predictor.lab.sim.trace import Trace
from predictor.lab.sim.world import World

PRICE = Price(
    name="made",
    usd_per_gpu_hour=3.6,
    bills="node",
    minimum_seconds=60,
    step_seconds=10,
    date="2026-01",
    source="nobody",
    to_be_checked=False,
)


def test_lives_are_billed_by_step_and_by_their_minimum() -> None:
    # 1 s → 60 s, 61 s → 70 s, 120 s → 120 s, at a tenth of a cent a second.
    assert bill([1.0, 61.0, 120.0], PRICE) == pytest.approx(0.25)


def test_nodes_are_paid_for_whole_and_an_unbounded_pool_by_its_pods(trace: Callable[..., Trace]) -> None:
    sdzero = CONFIGURATIONS["sdzero"]()
    two = replace(sdzero, pool=Pool(min_nodes=1, max_nodes=1, gpus_per_node=2))
    run = World(trace(10.0), two, 0).run()
    assert bill_run(run, two.pool, PRICE) == pytest.approx(2 * bill([run.end], PRICE))
    pods = msgspec.structs.replace(PRICE, bills="pod")
    assert bill_run(run, two.pool, pods) == bill(run.pod_lives, pods)
    free = World(trace(10.0), sdzero, 0).run()
    assert bill_run(free, sdzero.pool, PRICE) == bill(free.pod_lives, PRICE)


def test_every_price_says_when_and_from_where() -> None:
    prices = read_prices()
    assert "h100-rented" in prices
    for price in prices.values():
        assert price.date[:2] == "20"
        assert len(price.source) > 20


def test_a_table_of_ones_own_is_checked(tmp_path: Path) -> None:
    path = tmp_path / "prices.json"
    path.write_text('[{"name": "x", "usd_per_gpu_hour": 0}]')
    with pytest.raises(ValueError, match=r"prices\.json: .*usd_per_gpu_hour"):
        read_prices(path)


def test_sleeping_pays_for_rare_requests_and_less_for_frequent_ones() -> None:
    rare, frequent = points(PRICE, PRICE, 0, rates=(1, 240))
    for configuration in compared():
        name = configuration.name
        assert rare.saving(name) > 0.9
        assert frequent.saving(name) < 0.5
        rate = crossing([rare, frequent], name, 0.7)
        assert rate is not None
        assert 1 < rate < 240
    assert crossing([rare, frequent], "sdzero", 1.1) is None
    # An hour of a dedicated server at 3.6 $, for one picture.
    assert rare.dedicated == pytest.approx(3600, rel=0.1)
