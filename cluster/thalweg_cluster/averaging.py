"""The parts of the flat vector that are averaged, and that no rule updates: running statistics of a model.

    next = old - sum over the microbatches of weight * (old - what the microbatch made of it)

Rules:
  - A worker hands in weight * (old - new) in the place of a gradient, and it is summed as one: along the same tree, so
    to the same bits. The weights of a step add up to 1: next is the weighted mean.
  - Between the sum and the rule they are set aside. The gradient there is zero, so that neither a norm nor what
    shortens it knows of them; what the rule makes of that zero (weight decay, momentum) is overwritten. Its state there
    is zero.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from thalweg_cluster.rules import Block, Blocks


class Averaged:
    """What is averaged within one block."""

    def __init__(self, pieces: Iterable[tuple[int, int]]) -> None:
        """`pieces`: [begin, end) of each, counted from the block's begin."""
        self._pieces = [(slice(*piece), np.empty(piece[1] - piece[0], dtype=np.float32)) for piece in pieces]

    def set_aside(self, old: Block, summed: Block) -> None:
        """Takes from a block's sum what is averaged, and leaves zeros.

        old:    its present parameters
        summed: the sum of what the microbatches handed in
        """
        for piece, mean in self._pieces:
            change = summed[piece]
            np.subtract(old[piece], change, mean)
            change.fill(0.0)

    def put_back(self, parameters: Block, state: Blocks) -> None:
        """Puts the means where they belong, in the block as the rule has made it of what `set_aside` left."""
        for piece, mean in self._pieces:
            parameters[piece] = mean
            for array in state:
                array[piece] = 0.0


def averaged_within(ranges: Sequence[tuple[int, int]], begin: int, end: int) -> Averaged | None:
    """What is averaged of the elements [begin, end); None where nothing is.

    ranges: of the flat vector, each [begin, end), ascending: `Layout.averaged`
    """
    cut = [(max(first, begin) - begin, min(last, end) - begin) for first, last in ranges]
    pieces = [(first, last) for first, last in cut if first < last]
    return Averaged(pieces) if pieces else None
