"""The one order in which the microbatch gradients of a step are summed.

The rules
 1. The sum over V microbatches is a binary tree. A node covers a half-open range [begin, end) of microbatches; the root
    covers [0, V), a leaf covers one microbatch.
 2. A node of `size = end - begin >= 2` splits at `begin + 2**k`, where 2**k is the largest power of two below `size`.
    Its value is float32(left + right): one rounding, left operand first.
 3. So the tree depends on V alone: not on who computed which microbatch, nor on when it arrived. Its depth is
    ceil(log2(V)), the least that any order can have, and the rounding error grows with the depth, not with V
    (Higham, "The accuracy of floating point summation", SIAM J. Sci. Comput. 14, 1993).
 4. A host may hand on only the sums of whole nodes (`subtrees`); whoever combines them goes on up the same tree
    (`sum_plan` with those nodes as leaves). Any split of the microbatches into hosts gives the same bits.

Why not split at the midpoint: with rule 2 the nodes are the ranges [i * 2**k, (i + 1) * 2**k), cut off at V, whatever V
is. A host that holds an aligned range of a power of two holds one whole node and hands on one sum; any other contiguous
range is at most 2 * log2(V) nodes. Midpoints of a V that is no power of two are aligned to nothing. Where V is a power
of two, both are the same tree.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Range = tuple[int, int]


def split(begin: int, end: int) -> int:
    """Where the node [begin, end), of at least two microbatches, splits: its left child is [begin, split)."""
    return begin + (1 << ((end - begin - 1).bit_length() - 1))


@dataclass(frozen=True, kw_only=True)
class SumPlan:
    """The additions that sum the leaves of one node, in an order that keeps few temporaries.

    leaves:  the ranges of microbatches whose sums come in, in ascending order
    adds:    (left, right, into) each; the operands 0 .. len(leaves) - 1 are the leaves, len(leaves) is the output,
             which is the memory of leaf 0, the ones above are scratch
    scratch: how many scratch arrays `tree_sum` needs beside the output; at most ceil(log2(len(leaves)))
    """

    leaves: tuple[Range, ...]
    adds: tuple[tuple[int, int, int], ...]
    scratch: int


@lru_cache(maxsize=256)
def sum_plan(leaves: tuple[Range, ...]) -> SumPlan:
    """The plan that sums `leaves`, which must be whole nodes, adjacent and ascending, and cover one whole node.

    `sum_plan(microbatch_leaves(V))` is the whole tree; `sum_plan(((0, 4), (4, 6), (6, 7)))` goes on from three sums
    that hosts handed on. Raises ValueError where a leaf is no node of the tree over the range that the leaves cover.
    """
    if not leaves:
        raise ValueError("there is no sum over no microbatches")
    position = {leaf: index for index, leaf in enumerate(leaves)}
    adds: list[tuple[int, int, int]] = []
    deepest = 0

    def visit(begin: int, end: int, level: int) -> int:
        """Plans the sum of [begin, end) into temporary `level` (0: the output); returns the operand that holds it."""
        nonlocal deepest
        if (begin, end) in position:
            return position[begin, end]
        if end - begin < 2:
            raise ValueError(f"{leaves} are not whole, adjacent nodes of the summation tree (see microbatch {begin})")
        middle = split(begin, end)
        left = visit(begin, middle, level)
        right = visit(middle, end, level + 1)
        deepest = max(deepest, level)
        adds.append((left, right, len(leaves) + level))
        return len(leaves) + level

    visit(leaves[0][0], leaves[-1][1], 0)
    if len(adds) != len(leaves) - 1:
        raise ValueError(f"{leaves} overlap or are out of order")
    return SumPlan(leaves=leaves, adds=tuple(adds), scratch=deepest)


def microbatch_leaves(microbatches: int) -> tuple[Range, ...]:
    """The leaves of the whole tree over V = `microbatches` >= 1: one for each microbatch."""
    return tuple((m, m + 1) for m in range(microbatches))


def tree_sum(plan: SumPlan, blocks: Sequence[NDArray[np.float32]], scratch: Sequence[NDArray[np.float32]]) -> None:
    """Sums `blocks` (one for each leaf of `plan`, float32 (n,)) in the order of `plan`, in the place of the first.

    The other blocks are only read. `scratch`: at least `plan.scratch` arrays of (n,), overwritten. Nothing is
    allocated; no two arrays may overlap. The first block may be the output, since whatever is written there first has
    it for its left operand.
    """
    operands = (*blocks, blocks[0], *scratch)
    for left, right, into in plan.adds:
        np.add(operands[left], operands[right], operands[into])


def tree_sum_scalars(values: Sequence[float]) -> float:
    """The sum of `values` in float64 over the same tree, with the i-th value as leaf [i, i + 1); 0.0 of none."""
    if not values:
        return 0.0
    sums = [float(value) for value in values]
    # Level by level: neighbours that are left and right of one node are added, an odd one out waits. This is rule 2.
    while len(sums) > 1:
        paired = [left + right for left, right in zip(sums[::2], sums[1::2], strict=False)]
        sums = paired + sums[len(paired) * 2 :]
    return sums[0]


def subtrees(begin: int, end: int, microbatches: int) -> list[Range]:
    """The fewest whole nodes of the tree over V = `microbatches` that together cover the microbatches [begin, end).

    They are what a host that computed [begin, end) hands on. Raises ValueError unless 0 <= begin <= end <= V.
    """
    if not 0 <= begin <= end <= microbatches:
        raise ValueError(f"expected 0 <= begin <= end <= {microbatches}; found [{begin}, {end})")

    def visit(node_begin: int, node_end: int) -> list[Range]:
        if end <= node_begin or node_end <= begin:
            return []
        if begin <= node_begin and node_end <= end:
            return [(node_begin, node_end)]
        middle = split(node_begin, node_end)
        return visit(node_begin, middle) + visit(middle, node_end)

    return visit(0, microbatches)
