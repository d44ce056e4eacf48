"""int8: whole numbers from -127 to 127, and a scale for each 256 of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Final

import numpy as np

from thalweg_proto.errors import ProtocolError
from thalweg_proto.formats.pieces import SCRATCH, pieces
from thalweg_proto.formats.wire_format import Block, WireFormat, as_bytes, quiet

GROUP: Final = 256
"""Elements that share a scale; a piece holds a whole number of groups."""
_MOST: Final = np.array(127, dtype=np.float32)
_TINY: Final = np.finfo(np.float32).smallest_normal


@dataclass(frozen=True)
class Int8(WireFormat):
    """The elements in groups of 256, the last one may be short; G = ceil(n / 256) groups.

        bytes [0, 4 G)          G float32, little-endian: the scale of each group
        bytes [4 G, 4 G + n)    n int8

        scale   = max |v| / 127             over the group; 0 where that is below 2**-126
        encoded = round(v / scale)          ties to even; 0 where the scale is 0
        decoded = encoded * scale           all in float32

    A group with anything in it that is not finite, or so large that 127 * scale overflows, has the scale NaN and zeros:
    all of it is decoded as NaN, and the residual of all of it stays. Below 2**-126 a scale has too few bits left to
    keep v / scale within 127.
    """

    name: ClassVar[str] = "int8"
    exact: ClassVar[bool] = False
    keeps_residual: ClassVar[bool] = True

    def encoded_bytes(self, n: int) -> int:
        return 4 * _groups(n) + n

    def encode(self, values: Block, residual: Block | None) -> memoryview:
        encoded = np.empty(self.encoded_bytes(values.size), dtype=np.uint8)
        scales = encoded[: 4 * _groups(values.size)].view("<f4")
        numbers = encoded[scales.nbytes :].view(np.int8)
        with quiet():
            for piece, groups, shape in _cuts(values.size):
                total, quotients = SCRATCH.take(piece.stop - piece.start)
                if residual is None:
                    total = values[piece]
                else:
                    np.add(values[piece], residual[piece], total)
                total, quotients = total.reshape(shape), quotients.reshape(shape)

                scale = _scales(total, quotients)
                scales[groups] = scale
                scale = scale[:, None]
                broken = np.isnan(scale)
                np.divide(total, np.where(scale == 0, np.inf, scale), quotients)
                np.rint(quotients, quotients)
                if broken.any():
                    # What becomes of a NaN as an integer is up to the machine.
                    np.copyto(quotients, 0, where=broken)
                # Every value fits: |quotient| <= 127.
                np.copyto(numbers[piece].reshape(shape), quotients, casting="unsafe")
                if residual is not None:
                    # Exact: of a number and what it was rounded to, neither is more than twice the other, or one is 0
                    # (Sterbenz's lemma).
                    np.multiply(quotients, scale, quotients)
                    kept = residual[piece].reshape(shape)
                    np.subtract(total, quotients, out=kept, where=~broken if broken.any() else True)
        return as_bytes(encoded)

    def _decode(self, data: memoryview, out: Block) -> None:
        groups_all = _groups(out.size)
        scales = np.frombuffer(data, dtype="<f4", count=groups_all)
        numbers = np.frombuffer(data, dtype=np.int8, offset=scales.nbytes)
        with quiet():
            _check_scales(scales)
            for piece, groups, shape in _cuts(out.size):
                part = out[piece].reshape(shape)
                np.copyto(part, numbers[piece].reshape(shape))
                np.multiply(part, scales[groups, None], part)


def _groups(n: int) -> int:
    return -(-n // GROUP)


def _cuts(n: int) -> Iterator[tuple[slice, slice, tuple[int, int]]]:
    """Pieces of whole groups, then the short group: which elements, which groups, and the shape (groups, elements)."""
    whole = n - n % GROUP
    for piece in pieces(0, whole):
        groups = slice(piece.start // GROUP, piece.stop // GROUP)
        yield piece, groups, (groups.stop - groups.start, GROUP)
    if whole < n:
        yield slice(whole, n), slice(whole // GROUP, whole // GROUP + 1), (1, n - whole)


def _scales(total: Block, scratch: Block) -> Block:
    """The scale of each row of `total`: float32 (rows,)."""
    np.abs(total, scratch)
    scales: Block = np.maximum.reduce(scratch, axis=1)  # NaN where there is one
    np.divide(scales, _MOST, scales)
    scales[scales < _TINY] = 0
    scales[~np.isfinite(scales * _MOST)] = np.nan
    return scales


def _check_scales(scales: Block) -> None:
    """ProtocolError where a scale is neither NaN nor a finite number >= 0."""
    bad = np.flatnonzero((scales < 0) | np.isinf(scales))
    if bad.size:
        raise ProtocolError(
            f"expected scales >= 0, or NaN, in the format int8; found {scales[bad[0]]} for group {bad[0]:,} "
            f"of {scales.size:,}"
        )
