"""The first parameters of a network.

Rules:

- Everything follows from the job's seed; the drawing is NumPy's PCG64, whose streams NumPy keeps the same
  on every machine (its distributions may change between NumPy releases, see NEP 19).
- A layer whose activation follows is scaled for it, so that the variance neither grows nor fades with depth.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from thalweg_worker.models.protocol import Model, Parameters


def generator(seed: int) -> np.random.Generator:
    """The generator that `init` gets for a job's seed (any integer, taken modulo 2**64)."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(int(seed) % 2**64)))


def initial_parameters(model: Model, seed: int) -> Parameters:
    """The parameters before step 0: a pure function of the model and the seed.

    Each array is float32 and contiguous. Raises what `model.init` raises; see `checks.check_model`.
    """
    drawn = model.init(generator(seed))
    # Not ascontiguousarray, of which a single number comes back with an axis.
    return {name: np.asarray(drawn[name], dtype=np.float32, order="C") for name in drawn}


def he_normal(rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """N(0, 2 / fan_in), for layers before a ReLU. The last axis of `shape` counts outputs, the others inputs.

    Source: He, Zhang, Ren and Sun, "Delving deep into rectifiers", ICCV 2015, equation 10.
    """
    deviation = math.sqrt(2 / _inputs(shape))
    weights: NDArray[np.float32] = rng.standard_normal(shape, dtype=np.float32) * np.float32(deviation)
    return weights


def glorot_uniform(rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """U(-r, r) with r = sqrt(6 / (fan_in + fan_out)), for other layers; axes as for `he_normal`.

    fan_out counts the outputs that one input reaches: of a convolution height x width x channels out.
    Source: Glorot and Bengio, "Understanding the difficulty of training deep feedforward neural networks",
    AISTATS 2010, equation 16.
    """
    receptive_field = math.prod(shape[:-2])
    limit = math.sqrt(6 / (_inputs(shape) + receptive_field * shape[-1]))
    weights: NDArray[np.float32] = (rng.random(shape, dtype=np.float32) * 2 - 1) * np.float32(limit)
    return weights


def _inputs(shape: tuple[int, ...]) -> int:
    return math.prod(shape[:-1])
