"""What GPUs cost: a dated table of prices, and bills for lives of pods or nodes."""

import math
from collections.abc import Iterable
from importlib import resources
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from predictor.lab.sim.cluster import Pool
from predictor.lab.sim.world import Run


class Price(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one GPU costs at one seller, and what is billed: the pod's life, or the node's."""

    name: str
    usd_per_gpu_hour: Annotated[float, msgspec.Meta(gt=0)]
    bills: Literal["pod", "node"]
    minimum_seconds: Annotated[float, msgspec.Meta(ge=0)]  # of each life
    step_seconds: Annotated[float, msgspec.Meta(gt=0)]  # lives are rounded up to it
    date: str
    source: str
    to_be_checked: bool  # taken from others, not from the seller's own list


def read_prices(path: Path | None = None) -> dict[str, Price]:
    """The prices of a file, or those that come along, by name.

    Raises:
        ValueError: naming the file and what is wrong in it.
    """
    text = path.read_bytes() if path else resources.files(__package__).joinpath("prices.json").read_bytes()
    try:
        prices = msgspec.json.decode(text, type=list[Price])
    except msgspec.DecodeError as error:
        raise ValueError(f"{path or 'prices.json'}: {error}") from None
    return {price.name: price for price in prices}


def bill(lives: Iterable[float], price: Price) -> float:
    """US dollars for GPUs that were held for `lives` seconds each."""
    steps = (math.ceil(max(life, price.minimum_seconds) / price.step_seconds - 1e-9) for life in lives)
    return sum(steps) * price.step_seconds * price.usd_per_gpu_hour / 3600


def bill_run(run: Run, pool: Pool, price: Price) -> float:
    """US dollars for a simulated run.

    Where nodes are billed and the pool is bounded, every second that a node is up costs all of its GPUs. In an
    unbounded pool others use the GPUs that this service has let go: each pod's life is billed as if it were a node's.
    """
    if price.bills == "node" and run.node_lives:
        return bill(run.node_lives, price) * pool.gpus_per_node
    return bill(run.pod_lives, price)
