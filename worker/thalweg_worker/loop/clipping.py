"""Clipping where no server sees a step's whole gradient: the worker shortens its own."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from thalweg_proto.shared_memory import CHUNK


def shorten(gradient: NDArray[np.float32], longest: float, averaged: Sequence[tuple[int, int]] = ()) -> None:
    """Scales a gradient, flat, in place, to the Euclidean norm `longest` where it is longer; 0: leaves it as it is.

    As torch.nn.utils.clip_grad_norm_; a gradient that is not finite stays so.

    averaged: ranges [begin, end) that hold no gradient (`Layout.averaged`): not counted, and left as they are
    """
    if not longest:
        return
    aside = [gradient[begin:end].copy() for begin, end in averaged]
    for begin, end in averaged:
        gradient[begin:end] = 0.0
    _shorten(gradient, longest)
    for (begin, end), kept in zip(averaged, aside, strict=True):
        gradient[begin:end] = kept


def _shorten(gradient: NDArray[np.float32], longest: float) -> None:
    chunks = [gradient[i : i + CHUNK] for i in range(0, len(gradient), CHUNK)]
    norm = math.sqrt(math.fsum(map(_sum_of_squares, chunks)))
    if longest < norm < math.inf:
        np.multiply(gradient, np.float32(longest / (norm + 1e-6)), out=gradient)


def _sum_of_squares(chunk: NDArray[np.float32]) -> float:
    """In float32, which is quick; in float64 where that overflows. As the servers do where they clip."""
    squares = float(np.dot(chunk, chunk))
    return squares if math.isfinite(squares) else float(np.sum(np.square(chunk, dtype=np.float64)))
