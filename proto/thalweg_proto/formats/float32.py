"""float32 as it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from thalweg_proto.formats.wire_format import Block, WireFormat, as_bytes


@dataclass(frozen=True)
class Float32(WireFormat):
    """Nothing is changed and, on a little-endian machine, nothing copied.

        bytes [0, 4 n)    n float32, little-endian

    What `encode` returns is the memory of `values`: it says what stands there when it is read.
    """

    name: ClassVar[str] = "float32"
    exact: ClassVar[bool] = True
    keeps_residual: ClassVar[bool] = False

    def encoded_bytes(self, n: int) -> int:
        return 4 * n

    def encode(self, values: Block, residual: Block | None) -> memoryview:
        if residual is not None:
            raise ValueError("float32 keeps no residual: nothing is lost")
        return as_bytes(values.astype("<f4", copy=False))

    def _decode(self, data: memoryview, out: Block) -> None:
        np.copyto(out, np.frombuffer(data, dtype="<f4"))
