"""When requests arrive under open-loop load: the schedule is fixed before the first answer comes.

A client that waits for an answer before it sends again slows down with the server and hides its queue (Schroeder et al.
2006, "Open versus closed: a cautionary tale"). Times are seconds from the start of the run, in order.
"""

import numpy as np


def burst(count: int) -> list[float]:
    """`count` requests at the same moment."""
    if count < 1:
        raise ValueError(f"burst: got {count} requests; allowed: 1 or more")
    return [0.0] * count


def poisson(rate: float, count: int, seed: int) -> list[float]:
    """`count` requests of a Poisson process of `rate` per second: independent exponential gaps, the first at 0."""
    if not rate > 0:
        raise ValueError(f"poisson: got a rate of {rate}; allowed: above 0 per second")
    if count < 1:
        raise ValueError(f"poisson: got {count} requests; allowed: 1 or more")
    gaps = np.random.default_rng(seed).exponential(1 / rate, count - 1)
    return [0.0, *np.cumsum(gaps).tolist()]
