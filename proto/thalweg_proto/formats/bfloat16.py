"""bfloat16: the upper half of a float32, rounded."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from thalweg_proto.formats.pieces import SCRATCH, pieces
from thalweg_proto.formats.wire_format import Block, WireFormat, as_bytes, quiet

# Arrays of shape (), as in the update rules: uint32 with NumPy 1 and 2 alike, and quicker than a Python int.
_HALF: Final = np.array(16, dtype=np.uint32)
_ONE: Final = np.array(1, dtype=np.uint32)
_BELOW_TIE: Final = np.array(0x7FFF, dtype=np.uint32)
_UPPER: Final = np.array(0xFFFF0000, dtype=np.uint32)
_QUIET_NAN: Final = np.array(0x00400000, dtype=np.uint32)


@dataclass(frozen=True)
class BFloat16(WireFormat):
    """Sign, 8 bits of exponent, 7 of mantissa: the range of float32, and 2 to 3 digits.

        bytes [0, 2 n)    n uint16, little-endian: the upper halves of n float32

    Rounded to nearest, ties to even, as IEEE 754 has it: what lies beyond the largest number becomes infinity, infinity
    stays, NaN stays NaN. For parameters there is no residual; gradients have one.
    """

    name: ClassVar[str] = "bfloat16"
    exact: ClassVar[bool] = False
    keeps_residual: ClassVar[bool] = True

    def encoded_bytes(self, n: int) -> int:
        return 2 * n

    def encode(self, values: Block, residual: Block | None) -> memoryview:
        encoded = np.empty(values.size, dtype="<u2")
        with quiet():
            for piece in pieces(0, values.size):
                if residual is None:
                    _encode(values[piece], encoded[piece])
                else:
                    _encode_with_residual(values[piece], residual[piece], encoded[piece])
        return as_bytes(encoded)

    def _decode(self, data: memoryview, out: Block) -> None:
        halves = np.frombuffer(data, dtype="<u2")
        bits = out.view(np.uint32)
        for piece in pieces(0, out.size):
            words = bits[piece]
            np.copyto(words, halves[piece])
            np.left_shift(words, _HALF, words)


def _encode(values: Block, encoded: NDArray[np.uint16]) -> None:
    rounded, _ = SCRATCH.take(values.size)
    _round(values, rounded.view(np.uint32))
    _put(rounded.view(np.uint32), encoded)


def _encode_with_residual(values: Block, residual: Block, encoded: NDArray[np.uint16]) -> None:
    total, rounded = SCRATCH.take(values.size)
    bits = rounded.view(np.uint32)
    np.add(values, residual, total)
    plain = _round(total, bits)
    np.bitwise_and(bits, _UPPER, bits)
    # The difference is exact: a multiple of the sum's last place, of which there are at most 2**15.
    np.subtract(total, rounded, out=residual, where=True if plain else np.isfinite(rounded))
    _put(bits, encoded)


def _round(values: Block, into: NDArray[np.uint32]) -> bool:
    """Puts the bits of `values`, rounded, into the upper halves of `into`; the lower ones hold anything.

    False where there may be something that is not finite.
    """
    bits = values.view(np.uint32)
    # Half of the last place is added, one bit less where that place is even; what carries is rounded up.
    np.right_shift(bits, _HALF, into)
    np.bitwise_and(into, _ONE, into)
    np.add(into, _BELOW_TIE, into)
    np.add(into, bits, into)
    # One pass in cache instead of several: the sum of squares is finite only if every number is, and is far from
    # overflow. What fails it without need is rounded no differently.
    if math.isfinite(np.dot(values, values)):
        return True
    # The carry would make infinity or zero of a NaN.
    nan = np.isnan(values)
    into[nan] = bits[nan] | _QUIET_NAN
    return False


def _put(bits: NDArray[np.uint32], encoded: NDArray[np.uint16]) -> None:
    np.right_shift(bits, _HALF, bits)
    np.copyto(encoded, bits, casting="unsafe")  # every value fits: 16 bits are left
