"""The arithmetic of a shard's owner: the gradients of a block come in, its next parameters come out.

The parameters and the rule's state of the shard are the owner's alone; what workers read are copies of them. Everything
is elementwise, or summed along the tree of summation.py; so the bits are those of any other way to divide the vector.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from thalweg_cluster.averaging import Averaged, averaged_within
from thalweg_cluster.checkpoints.state import TrainingState
from thalweg_cluster.rules import Block, BlockUpdate, Rule
from thalweg_cluster.rules.rule import scalar
from thalweg_cluster.summation import SumPlan, tree_sum
from thalweg_cluster.update import all_finite, sum_of_squares
from thalweg_proto.shared_memory import CHUNK


class Shard:
    """Elements [begin, end) of the flat vector, and how they are updated. One thread at a time, but for `copy`.

    parameters: (end - begin,) float32: what is newest of each element
    """

    def __init__(
        self,
        begin: int,
        end: int,
        start: TrainingState,
        rule: Rule,
        *,
        block: int,
        leaves: int,
        averaged: Sequence[tuple[int, int]] = (),
    ) -> None:
        """Starts from the part of `start` that it owns.

        block:    elements of the longest block
        leaves:   how many gradients are summed at most
        averaged: ranges [begin, end) of the flat vector that are averaged, and not updated by the rule (averaging.py)
        """
        self.begin, self.end = begin, end
        self.parameters: NDArray[np.float32] = start.parameters[begin:end].copy()
        self._averaged = averaged
        self._aside: dict[int, Averaged] = {}  # by the begin of the block
        self._overwriting = threading.Lock()  # guards `parameters` against a copy in the middle of a block
        self._rule = rule
        self._state = [np.empty(end - begin, dtype=np.float32) for _ in rule.slots]
        for array, slot in zip(self._state, rule.slots, strict=True):
            value = start.slot(slot)
            array[...] = value if isinstance(value, float) else value[begin:end]
        # The tree over n leaves needs ceil(log2(n)) temporaries (summation.py).
        self._scratch = np.empty((max(rule.scratch, leaves.bit_length()), block), dtype=np.float32)

    @property
    def state(self) -> dict[str, Block]:
        """The rule's state by name, each (end - begin,)."""
        return {slot.name: array for slot, array in zip(self._rule.slots, self._state, strict=True)}

    def block_update(self, step: int, learning_rate: float) -> BlockUpdate:
        """The rule's update number `step`, to be handed to `apply`."""
        return self._rule.block_update(step, learning_rate)

    def sum(self, plan: SumPlan, leaves: Sequence[Block]) -> Block:
        """The sum of the gradients of one block, in the place of the first; the others are only read."""
        tree_sum(plan, leaves, [row[: len(leaves[0])] for row in self._scratch])
        return leaves[0]

    def set_aside(self, begin: int, summed: Block) -> None:
        """Takes what is averaged from the sum of the block that begins at `begin`, until that is handed to `apply`.

        Once the block is summed, and before its squares are taken.
        """
        if not self._averaged:
            return
        aside = averaged_within(self._averaged, begin, begin + len(summed))
        if aside is not None:
            aside.set_aside(self._block(begin, summed), summed)
            self._aside[begin] = aside

    def _block(self, begin: int, summed: Block) -> Block:
        return self.parameters[begin - self.begin : begin - self.begin + len(summed)]

    def copy(self, begin: int, end: int) -> Block:
        """What is newest of the elements [begin, end), of each block the whole of one update; from any thread."""
        with self._overwriting:
            copy: Block = self.parameters[begin - self.begin : end - self.begin].copy()
        return copy

    def apply(self, begin: int, summed: Block, update: BlockUpdate, factor: float | None = None) -> bool:
        """Updates the block that begins at `begin`; whether what came of it is finite.

        summed: its gradient, after `set_aside`; the new parameters take its place
        factor: what the gradient is multiplied by first
        """
        cut = slice(begin - self.begin, begin - self.begin + len(summed))
        if factor is not None:
            np.multiply(summed, scalar(factor), summed)
        state = [array[cut] for array in self._state]
        parameters = self._block(begin, summed)
        update(parameters, summed, state, state, [row[: len(summed)] for row in self._scratch])
        if (aside := self._aside.pop(begin, None)) is not None:
            aside.put_back(summed, state)
        with self._overwriting:
            parameters[...] = summed
        hiding = [array for array, slot in zip(state, self._rule.slots, strict=True) if slot.hides]
        return all_finite(summed) and all(map(all_finite, hiding))

    def keep(self, begin: int, summed: Block) -> None:
        """Puts the parameters of the block that begins at `begin`, as they are, in the place of its gradient."""
        summed[...] = self._block(begin, summed)


def squares(summed: Block) -> list[float]:
    """The sums of squares of the chunks of a block."""
    return [sum_of_squares(summed[i : i + CHUNK]) for i in range(0, len(summed), CHUNK)]
