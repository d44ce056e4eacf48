"""Blocks of float32 to encode, drawn by hypothesis or made from a seed."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from thalweg_proto.formats.pieces import PIECE

LENGTHS = st.integers(1, 20) | st.sampled_from([255, 256, 257, 511, 512, 700])
LONG = (PIECE - 1, PIECE, PIECE + 1, 2 * PIECE + 257)  # lengths that are cut into pieces


def any_bits(lengths: st.SearchStrategy[int] = LENGTHS) -> st.SearchStrategy[np.ndarray]:
    """Any float32 there are: subnormal ones, infinities, and NaN of every kind."""
    words = hnp.arrays(np.uint32, lengths, elements=st.integers(0, 2**32 - 1))
    return words.map(lambda array: array.view(np.float32))


def finite(lengths: st.SearchStrategy[int] = LENGTHS, most: float = 1e30) -> st.SearchStrategy[np.ndarray]:
    """Finite numbers of any size up to `most`, with many equal ones and zeros among them."""
    most = float(np.float32(most))
    elements = st.floats(-most, most, width=32) | st.sampled_from([0.0, -0.0, 1.0, -1.0, 127.0, 0.5, 2.0**-140])
    return hnp.arrays(np.float32, lengths, elements=elements)


def normal(n: int, seed: int = 0) -> np.ndarray:
    """Normally distributed numbers whose size changes by a factor of 10,000 along the block."""
    scale = np.logspace(-2, 2, n, dtype=np.float32)
    return np.random.default_rng(seed).standard_normal(n, dtype=np.float32) * scale


def decoded(fmt, data, n: int) -> np.ndarray:
    """What `data` says of n elements; every element was something else before."""
    out = np.full(n, 12345.0, dtype=np.float32)
    fmt.decode(memoryview(data), out)
    return out


def rounded_sum(values: np.ndarray, residual: np.ndarray) -> np.ndarray:
    """float32(values + residual), the one rounding of error feedback; overflow is infinity."""
    with np.errstate(over="ignore", invalid="ignore"):
        return values + residual


def bits(array: np.ndarray) -> list[int]:
    """The bits of float32, which tell 0 from -0 and one NaN from another."""
    return array.view(np.uint32).tolist()
