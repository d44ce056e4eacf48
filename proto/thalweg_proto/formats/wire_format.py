"""What a wire format is: how a block of float32, a piece of a gradient or of the parameters, travels between servers.

Rules:
  - A format is a frozen set of options and holds no arrays: threads may share it. Scratch is each thread's own.
  - How many bytes n elements take follows from n alone (`encoded_bytes`), so a receiver checks the length of what comes
    before it takes memory for it.
  - The same input gives the same bytes.
  - Error feedback: what an encoding cannot say stays in the residual and is said later. Per element, in float32:

        sum      = values + residual      the one rounding
        encoded  = what of the sum the format can say
        residual = sum - decoded          exact in every format here

    Source: Seide et al., "1-bit stochastic gradient descent and its application to data-parallel distributed training
    of speech DNNs", Interspeech 2014.
  - NaN and infinity reach the other side as something that is not finite, so that the receiver sees it and halts.
    Where an element is decoded as not finite, its residual stays as it was: a residual is always finite.
  - Nothing that comes in is trusted: bytes that no encoder writes raise ProtocolError, and `out` is untouched then.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from thalweg_proto.errors import ProtocolError

Block = NDArray[np.float32]


class WireFormat(ABC):
    """A way to write n >= 1 float32 as bytes; see the rules of this module.

    name:           as in the job file
    exact:          decoding gives the bits that were encoded
    keeps_residual: what is lost can be kept for the next block of the same elements
    """

    name: ClassVar[str]
    exact: ClassVar[bool]
    keeps_residual: ClassVar[bool]

    @abstractmethod
    def encoded_bytes(self, n: int) -> int:
        """The length of n >= 1 elements, exactly."""

    @abstractmethod
    def encode(self, values: Block, residual: Block | None) -> memoryview:
        """`values` (+ `residual`) as bytes; read-only, fresh memory unless the format says otherwise.

        values:   float32 (n,), contiguous; only read
        residual: float32 (n,), contiguous, zero at first; updated in place. None: what is lost is lost. A format that
                  keeps none takes nothing else: ValueError.
        """

    def decode(self, data: memoryview, out: Block) -> None:
        """Writes to `out`, float32 (n,) and contiguous, what `data` says.

        data: contiguous, of any alignment; only read

        ProtocolError where `data` is not what an encoder writes for n elements; `out` is untouched then.
        """
        expected = self.encoded_bytes(out.size)
        if data.nbytes != expected:
            raise ProtocolError(
                f"expected {expected:,} bytes, which {out.size:,} elements take in the format {self.name}; "
                f"found {data.nbytes:,}"
            )
        self._decode(data, out)

    @abstractmethod
    def _decode(self, data: memoryview, out: Block) -> None:
        """`decode`, with a length that fits."""


def as_bytes(array: NDArray[Any]) -> memoryview:
    """The bytes of a contiguous array, read-only, without a copy."""
    return array.view(np.uint8).data.toreadonly()


def quiet() -> np.errstate:
    """NumPy does not warn of overflow and NaN: the receiver finds them, and says in which tensor."""
    return np.errstate(over="ignore", invalid="ignore")
