"""topk: the few elements of largest magnitude; the others wait in the residual."""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from thalweg_proto.errors import ProtocolError
from thalweg_proto.formats.pieces import pieces
from thalweg_proto.formats.wire_format import Block, WireFormat, as_bytes, quiet

_MAGNITUDE: Final = np.array(0x7FFFFFFF, dtype=np.uint32)


@dataclass(frozen=True)
class TopK(WireFormat):
    """The k = ceil(n * fraction) elements of largest magnitude, the lower index first among equals.

        bytes [0, 4 k)      k uint32, little-endian: their indices, strictly ascending
        bytes [4 k, 8 k)    k float32, little-endian: the elements

    All others are decoded as 0. NaN counts as larger than infinity, so what is not finite is sent before anything else;
    the residual of the whole block stays then.

    fraction: in (0, 1]; taken as it is written in decimal, so 0.07 of 100 is 7, not 8

    Scratch is each thread's own: 9 bytes an element of the longest block that the thread has encoded.
    Source: Aji and Heafield, "Sparse communication for distributed gradient descent", EMNLP 2017.
    """

    name: ClassVar[str] = "topk"
    exact: ClassVar[bool] = False
    keeps_residual: ClassVar[bool] = True

    fraction: float = 0.01

    def __post_init__(self) -> None:
        if not 0 < self.fraction <= 1:
            raise ValueError(f"expected a fraction in (0, 1] for the format topk; found {self.fraction}")

    def kept(self, n: int) -> int:
        """k: how many of n elements are sent, from 1 to n."""
        return math.ceil(n * Fraction(str(self.fraction)))

    def encoded_bytes(self, n: int) -> int:
        return 8 * self.kept(n)

    def encode(self, values: Block, residual: Block | None) -> memoryview:
        k = self.kept(values.size)
        encoded = np.empty(8 * k, dtype=np.uint8)
        index, elements = encoded[: 4 * k].view("<u4"), encoded[4 * k :].view("<f4")
        scratch = _SCRATCH.take(values.size)
        total = values
        if residual is not None:
            total = scratch.total
            with quiet():
                np.add(values, residual, total)
        index[...] = _largest(total, k, scratch)
        elements[...] = total[index]
        if residual is not None and np.isfinite(elements).all():
            residual[...] = total
            residual[index] = 0
        return as_bytes(encoded)

    def _decode(self, data: memoryview, out: Block) -> None:
        k = self.kept(out.size)
        index = np.frombuffer(data, dtype="<u4", count=k)
        _check_index(index, out.size)
        out.fill(0)
        out[index] = np.frombuffer(data, dtype="<f4", offset=index.nbytes)


class _Scratch(threading.local):
    """total: float32 (n,); magnitude: uint32 (n,); keep: bool (n,)."""

    def __init__(self) -> None:
        self._make(0)

    def _make(self, n: int) -> None:
        self._total = np.empty(n, dtype=np.float32)
        self._magnitude = np.empty(n, dtype=np.uint32)
        self._keep = np.empty(n, dtype=np.bool_)

    def take(self, n: int) -> _Scratch:
        """Room for n elements, holding anything; good until this thread takes again."""
        if self._total.size < n:
            self._make(n)
        self.total, self.magnitude, self.keep = self._total[:n], self._magnitude[:n], self._keep[:n]
        return self


_SCRATCH: Final = _Scratch()


def _largest(total: Block, k: int, scratch: _Scratch) -> NDArray[np.intp]:
    """The indices, ascending, of the k elements of largest magnitude, the lower index first among equals."""
    magnitude, keep = scratch.magnitude, scratch.keep
    # Without the sign, the bits of floats have the order of the floats, and NaN is above infinity.
    np.bitwise_and(total.view(np.uint32), _MAGNITUDE, magnitude)
    magnitude.partition(total.size - k)
    least = magnitude[total.size - k]
    np.bitwise_and(total.view(np.uint32), _MAGNITUDE, magnitude)
    np.greater(magnitude, least, keep)
    missing = k - np.count_nonzero(keep)
    # Piece by piece, since almost all may be equal: those of a gradient that is mostly zero.
    for piece in pieces(0, total.size):
        if not missing:
            break
        equal = np.flatnonzero(magnitude[piece] == least)[:missing]
        keep[piece][equal] = True
        missing -= equal.size
    return np.flatnonzero(keep)


def _check_index(index: NDArray[np.uint32], n: int) -> None:
    """ProtocolError where the indices do not ascend strictly, or one is not below n."""
    repeated = np.flatnonzero(index[1:] <= index[:-1])
    if repeated.size:
        at = int(repeated[0])
        raise ProtocolError(
            f"expected indices that ascend strictly in the format topk; found {index[at + 1]:,} after {index[at]:,}"
        )
    if index[-1] >= n:
        raise ProtocolError(f"expected indices below {n:,} in the format topk; found {index[-1]:,}")
