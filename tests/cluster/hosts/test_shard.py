from __future__ import annotations

import threading
from itertools import chain, pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thalweg_cluster.checkpoints import TrainingState
from thalweg_cluster.hosts.shard import Shard, squares
from thalweg_cluster.rules import RULES, make_rule
from thalweg_cluster.summation import microbatch_leaves, sum_plan
from thalweg_proto.shared_memory import CHUNK

SIZE, STEPS = 300, 4
every_rule = pytest.mark.parametrize("rule", RULES)
CUTS = st.sets(st.integers(1, SIZE - 1), max_size=9).map(lambda inner: [0, *sorted(inner), SIZE])


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def trained(rule: str, cuts: list[int], owners: list[int], factor: float | None = None) -> np.ndarray:
    """The parameters after some steps, with blocks that end at `cuts`, and shards of their own that end at `owners`."""
    initial, leaves = normal(SIZE), 3
    plan = sum_plan(microbatch_leaves(leaves))
    shards = [
        Shard(begin, end, TrainingState.new(initial), make_rule(rule, {}), block=SIZE, leaves=leaves)
        for begin, end in pairwise(owners)
    ]
    ends = sorted({*cuts, *owners})
    for step in range(STEPS):
        gradients = normal(leaves, SIZE, seed=step)
        for shard in shards:
            update = shard.block_update(step, 0.1)
            for begin, end in pairwise(ends):
                if shard.begin <= begin < shard.end:
                    summed = shard.sum(plan, [gradient[begin:end] for gradient in gradients])
                    assert shard.apply(begin, summed, update, factor)
    return np.concatenate([shard.parameters for shard in shards])


@pytest.mark.parametrize("factor", [None, 0.25])
def test_a_shard_does_what_plain_numpy_does(factor):
    """Sum along the tree, momentum and step over the whole vector, in expressions that make new arrays."""
    expected, velocity = normal(SIZE), np.zeros(SIZE, np.float32)
    for step in range(STEPS):
        g = normal(3, SIZE, seed=step)
        summed = (g[0] + g[1]) + g[2]
        velocity = velocity * np.float32(0.9) + summed * np.float32(factor or 1.0)
        expected = expected - velocity * np.float32(0.1)
    found = trained("momentum", [0, 7, 100, SIZE], [0, 50, SIZE], factor)
    np.testing.assert_array_equal(found, expected)


@every_rule
@given(cuts=CUTS, owners=CUTS)
def test_any_cut_into_blocks_and_shards_gives_the_same_bits(rule, cuts, owners):
    """As one block of one shard."""
    np.testing.assert_array_equal(trained(rule, cuts, owners), trained(rule, [0, SIZE], [0, SIZE]))


def one(rule: str = "sgd", initial: float = 1.0, **options) -> Shard:
    """A shard of 4 elements from 8 on."""
    return Shard(
        8, 12, TrainingState.new(np.full(12, initial, np.float32)), make_rule(rule, options), block=4, leaves=2
    )


def test_the_new_parameters_take_the_gradients_place():
    """And the shard has them, too: 1 - 0.5 * 2 = 0 in the two elements of the block, the others stay."""
    shard = one()
    gradient = np.full(2, 2.0, np.float32)
    assert shard.apply(10, gradient, shard.block_update(0, 0.5))
    assert gradient.tolist() == [0.0, 0.0]
    assert shard.parameters.tolist() == [1.0, 1.0, 0.0, 0.0]


def test_the_other_gradients_of_a_sum_are_only_read():
    """The sum lies where the first of them was."""
    leaves = [np.full(4, value, np.float32) for value in (1.0, 2.0)]
    summed = one().sum(sum_plan(microbatch_leaves(2)), leaves)
    assert summed is leaves[0]
    assert [leaf.tolist() for leaf in leaves] == [[3.0] * 4, [2.0] * 4]


def test_a_shard_has_parameters_of_its_own():
    """What it started from may change, and stays as it was."""
    initial = np.ones(4, np.float32)
    shard = Shard(0, 4, TrainingState.new(initial), make_rule("sgd", {}), block=4, leaves=1)
    shard.apply(0, np.ones(4, np.float32), shard.block_update(0, 1.0))
    initial[...] = 7.0
    assert shard.parameters.tolist() == [0.0] * 4


def test_the_state_starts_as_the_rule_says():
    """Adagrad's sum of squares at 3: 1 - 1 * 1 / sqrt(3 + 1) = 0.5."""
    shard = one("adagrad", initial_accumulator_value=3.0)
    gradient = np.ones(4, np.float32)
    shard.apply(8, gradient, shard.block_update(0, 1.0))
    assert gradient.tolist() == pytest.approx([0.5] * 4)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@every_rule
def test_a_gradient_that_is_not_finite_is_found(rule, bad):
    """In any element of the block; a block beside it is fine."""
    shard = one(rule)
    update = shard.block_update(0, 0.1)
    with np.errstate(all="ignore"):
        for at in (0, 1):
            gradient = np.ones(2, np.float32)
            gradient[at] = bad
            assert not shard.apply(8, gradient, update)
    assert shard.apply(10, np.ones(2, np.float32), update)


@pytest.mark.parametrize("rule", ["adagrad", "rmsprop", "adam", "adamw"])
def test_a_state_that_overflows_is_found_though_the_parameters_hide_it(rule):
    """The square of 1e30 is infinite: the parameter would stay where it is for ever."""
    shard = one(rule)
    gradient = np.full(4, 1e30, np.float32)
    with np.errstate(all="ignore"):
        assert not shard.apply(8, gradient, shard.block_update(0, 0.1))
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("length", [1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 5])
def test_squares_are_those_of_each_chunk(length):
    """One number for each begun chunk, and together the square of the norm."""
    block = normal(length)
    found = squares(block)
    chunks = np.split(block.astype(np.float64), range(CHUNK, length, CHUNK))
    assert found == pytest.approx([float((chunk**2).sum()) for chunk in chunks], rel=1e-5)


def test_squares_do_not_depend_on_where_blocks_end():
    """As long as it is at a chunk: the same bits."""
    whole = normal(7 * CHUNK + 5)
    for chunks in (1, 2, 3):
        step = chunks * CHUNK
        blocks = [whole[i : i + step] for i in range(0, len(whole), step)]
        assert [*chain.from_iterable(map(squares, blocks))] == squares(whole)


def test_squares_that_overflow_float32_are_known():
    """1e30 squared is 1e60 in float64."""
    with np.errstate(over="ignore"):
        assert squares(np.full(2, 1e30, np.float32)) == pytest.approx([2e60])


def test_a_copy_has_no_block_in_the_middle_of_an_update():
    """Of a block whose elements are all equal in each version, every copy has equal elements."""
    size = 32 * CHUNK
    start = TrainingState.new(np.zeros(CHUNK + size, np.float32))
    shard = Shard(CHUNK, CHUNK + size, start, make_rule("sgd", {}), block=size, leaves=1)
    copied = threading.Event()

    def train():
        while not copied.is_set():
            assert shard.apply(CHUNK, np.ones(size, np.float32), shard.block_update(0, 1.0))

    trainer, seen = threading.Thread(target=train), set()
    trainer.start()
    try:
        while len(seen) < 50 and trainer.is_alive():
            copy = shard.copy(CHUNK, CHUNK + size)
            assert (copy == copy[0]).all()
            seen.add(float(copy[0]))
    finally:
        copied.set()
        trainer.join()
    assert len(seen) == 50
