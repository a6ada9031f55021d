from collections.abc import Callable

import numpy as np
import pytest

from predictor.lab.sim.trace import Trace


@pytest.fixture
def trace() -> Callable[..., Trace]:
    """Makes requests for one model at the given seconds."""

    def make(*at: float, images: int = 1, steps: int = 30, identity: list[int] | None = None) -> Trace:
        count = len(at)
        return Trace(
            name="made",
            at=np.array(at, float),
            images=np.full(count, images),
            steps=np.full(count, steps),
            model=np.zeros(count, int),
            models=("all",),
            identity=None if identity is None else np.array(identity),
        )

    return make
