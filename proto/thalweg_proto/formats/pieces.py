"""How a long block is cut into pieces that stay in a core's cache, and the scratch for one."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Final

import numpy as np

from thalweg_proto.formats.wire_format import Block

PIECE: Final = 16 * 1024
"""Elements of a piece: 64 KB an array, so that the few that are in use stay in the L2 cache, and calls do not count."""


def pieces(begin: int, end: int) -> Iterator[slice]:
    """[begin, end), piece by piece; the last one may be short."""
    for at in range(begin, end, PIECE):
        yield slice(at, min(at + PIECE, end))


class Scratch(threading.local):
    """Two arrays of a piece, for each thread its own, made when the thread first asks."""

    def __init__(self) -> None:
        self._arrays = np.empty((2, PIECE), dtype=np.float32)

    def take(self, n: int) -> tuple[Block, Block]:
        """Two float32 arrays of n <= PIECE elements, holding anything; good until this thread takes again."""
        return self._arrays[0, :n], self._arrays[1, :n]


SCRATCH: Final = Scratch()
