"""Noise is a function of seed and step."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from predictor.engine.noise import gaussian

seeds = st.integers(0, 2**53)


def test_the_stream_is_fixed_for_ever() -> None:
    """A picture is reproduced from its seed years later: these values may never change."""
    assert gaussian(1, 0, (4,)).tolist() == GOLDEN


@given(seeds, st.integers(0, 150), st.integers(0, 150))
def test_steps_and_seeds_have_streams_of_their_own(seed: int, a: int, b: int) -> None:
    same = np.array_equal(gaussian(seed, a, (8,)), gaussian(seed, b, (8,)))
    assert same == (a == b)
    assert not np.array_equal(gaussian(seed, a, (8,)), gaussian(seed + 1, a, (8,)))


@given(seeds)
def test_it_is_unit_noise(seed: int) -> None:
    noise = gaussian(seed, 0, (4, 64, 64))
    assert noise.dtype == np.float32
    assert abs(noise.mean()) < 0.05
    assert abs(noise.std() - 1) < 0.05


GOLDEN = [1.091689109802246, 0.45582669973373413, 0.7017897367477417, 0.2849433720111847]
