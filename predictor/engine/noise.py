"""Noise that depends on the seed alone: not on the device, the batch, the runtime, or the order of requests.

Philox 4x64-10 is a counter-based generator (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC11). Its
key of two 64-bit words is (seed, step) here and its counter starts at zero, so that every step of every image has a
stream of its own and nothing has to be remembered.
"""

import numpy as np

from predictor.engine.runtime import Floats


def gaussian(seed: int, step: int, shape: tuple[int, ...]) -> Floats:
    """Standard normal float32 of `shape`; step 0 is for the initial latents, step k for the k-th step's fresh noise.

    Raises:
        OverflowError: `seed` or `step` is not in 0 to 2**64 - 1.
    """
    philox = np.random.Philox(key=np.array([seed, step], np.uint64))
    return np.random.Generator(philox).standard_normal(shape, dtype=np.float32)
