from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thalweg_cluster.summation import microbatch_leaves, subtrees, sum_plan, tree_sum, tree_sum_scalars

COUNTS = st.integers(1, 64)


def plain(values: list[np.float32]) -> np.float32:
    """The definition, by recursion: split at the largest power of two below the length."""
    if len(values) == 1:
        return values[0]
    half = 1
    while 2 * half < len(values):
        half *= 2
    return np.float32(plain(values[:half]) + plain(values[half:]))


def blocks_of(count: int, seed: int = 0) -> list[np.ndarray]:
    scale = np.logspace(-4, 4, count, dtype=np.float32)
    return list(np.random.default_rng(seed).standard_normal((count, 5), dtype=np.float32) * scale[:, None])


def summed(leaves, blocks) -> np.ndarray:
    plan = sum_plan(tuple(leaves))
    scratch = [np.full(5, np.nan, np.float32) for _ in range(plan.scratch)]
    own = [block.copy() for block in blocks]
    tree_sum(plan, own, scratch)
    np.testing.assert_array_equal(own[1:], blocks[1:])  # only the first is written
    return own[0]


def test_five_numbers_by_hand():
    """((0 + 1) + (2 + 3)) + 4."""
    assert tree_sum_scalars([1e16, 1.0, -1e16, 1.0, 3.0]) == ((1e16 + 1.0) + (-1e16 + 1.0)) + 3.0


@given(COUNTS)
def test_the_plan_agrees_with_the_definition_to_the_bit(count):
    """Every element of the sum is that of the recursion."""
    blocks = blocks_of(count)
    out = summed(microbatch_leaves(count), blocks)
    assert out.tolist() == [plain([block[i] for block in blocks]) for i in range(5)]


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=64))
def test_scalars_follow_the_same_tree(values):
    """The loss is summed in the order of the gradients."""

    def recurse(part):
        if len(part) == 1:
            return part[0]
        half = 1 << ((len(part) - 1).bit_length() - 1)
        return recurse(part[:half]) + recurse(part[half:])

    assert tree_sum_scalars(values) == recurse(values)


@given(COUNTS.flatmap(lambda v: st.tuples(st.just(v), st.lists(st.integers(0, v), max_size=4))))
def test_any_split_of_the_microbatches_into_hosts_gives_the_same_bits(case):
    """Hosts hand on sums of whole subtrees; whoever goes on from them gets what all leaves give."""
    count, cuts = case
    blocks = blocks_of(count)
    bounds = [0, *sorted(cuts), count]
    parts = [part for begin, end in itertools.pairwise(bounds) for part in subtrees(begin, end, count)]
    sums = [summed([(m, m + 1) for m in range(b, e)], blocks[b:e]) for b, e in parts]
    assert summed(parts, sums).tolist() == summed(microbatch_leaves(count), blocks).tolist()


def test_an_aligned_host_hands_on_one_sum():
    """4 of 16 microbatches from 8 on are one subtree; 3 to 7 of 8 are three."""
    assert subtrees(8, 12, 16) == [(8, 12)]
    assert subtrees(3, 8, 8) == [(3, 4), (4, 8)]
    assert subtrees(0, 7, 7) == [(0, 7)]


def test_what_is_no_subtree_is_refused():
    """Ranges that cut through the tree, leave a gap or overlap."""
    for leaves in [((0, 1), (1, 3), (3, 4)), ((0, 2), (3, 4)), ((0, 2), (1, 4))]:
        with pytest.raises(ValueError, match=r"nodes|overlap"):
            sum_plan(leaves)
