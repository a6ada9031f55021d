"""Noise is a function of seed and step."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from predictor.engine.noise import gaussian

seeds = st.integers(0, 2**53)
SHAPE = (4, 8, 8)

# A picture is reproduced from its seed years later: these values may never change.
GOLDEN = {
    (0, 0): [0.059911035001277924, 0.015559634193778038, -1.1644384860992432, -0.13264712691307068],
    (1, 1): [0.1866123527288437, -0.055415451526641846, -0.37375617027282715, -1.4310106039047241],
    (9007199254740992, 150): [-0.27497589588165283, 0.30578723549842834, -0.024508990347385406, 0.11080540716648102],
    (18446744073709551615, 0): [-1.744478702545166, -0.48715826869010925, 1.5449836254119873, -0.9327644109725952],
    (1, 0): [1.091689109802246, 0.45582669973373413, 0.7017897367477417, 0.2849433720111847],
}


@pytest.mark.parametrize(("seed", "step"), GOLDEN)
def test_the_stream_is_fixed_for_ever(seed: int, step: int) -> None:
    assert gaussian(seed, step, (4,)).tolist() == GOLDEN[seed, step]


def test_the_generator_is_philox_with_the_documented_key() -> None:
    """The known answers of the paper's own library (Random123, kat_vectors: philox4x64 10): all zeros."""
    zeros = np.random.Philox(counter=2**256 - 1, key=np.array([0, 0], np.uint64))
    assert [hex(word) for word in zeros.random_raw(4)] == [
        "0x16554d9eca36314c",
        "0xdb20fe9d672d0fdc",
        "0xd7e772cee186176b",
        "0x7e68b68aec7ba23b",
    ]
    expected = np.random.Generator(np.random.Philox(key=7 + (3 << 64))).standard_normal(SHAPE, dtype=np.float32)
    np.testing.assert_array_equal(gaussian(7, 3, SHAPE), expected)


@given(seeds, st.integers(0, 150), st.integers(0, 150))
def test_steps_and_seeds_have_streams_of_their_own(seed: int, a: int, b: int) -> None:
    same = np.array_equal(gaussian(seed, a, (8,)), gaussian(seed, b, (8,)))
    assert same == (a == b)
    assert not np.array_equal(gaussian(seed, a, (8,)), gaussian(seed + 1, a, (8,)))


@given(st.lists(st.tuples(seeds, st.integers(0, 150)), unique=True, max_size=6), st.randoms())
def test_the_order_of_draws_does_not_matter(draws: list[tuple[int, int]], random: object) -> None:
    alone = {draw: gaussian(*draw, SHAPE) for draw in draws}
    random.shuffle(draws)  # type: ignore[attr-defined]
    for draw in draws:
        np.testing.assert_array_equal(gaussian(*draw, SHAPE), alone[draw])


@given(seeds)
def test_neighbouring_seeds_and_steps_are_not_alike(seed: int) -> None:
    here = gaussian(seed, 0, (4, 64, 64)).ravel()
    for other in (gaussian(seed + 1, 0, (4, 64, 64)), gaussian(seed, 1, (4, 64, 64))):
        assert abs(np.corrcoef(here, other.ravel())[0, 1]) < 0.05


@given(seeds)
def test_it_is_unit_noise(seed: int) -> None:
    noise = gaussian(seed, 0, (4, 64, 64))
    assert noise.dtype == np.float32
    assert noise.shape == (4, 64, 64)
    assert abs(noise.mean()) < 0.05
    assert abs(noise.std() - 1) < 0.05


@pytest.mark.parametrize(("seed", "step"), [(-1, 0), (2**64, 0), (0, -1)])
def test_a_seed_is_never_wrapped_round(seed: int, step: int) -> None:
    with pytest.raises(OverflowError):
        gaussian(seed, step, (4,))
