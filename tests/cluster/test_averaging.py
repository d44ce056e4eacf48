"""What no rule updates, by hand and against an oracle; where workers meet, and at the owners of shards."""

from __future__ import annotations

import os
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thalweg_cluster.averaging import averaged_within
from thalweg_cluster.checkpoints import TrainingState
from thalweg_cluster.hosts import shard as owner
from thalweg_cluster.rules import RULES, Rule, make_rule
from thalweg_cluster.summation import microbatch_leaves, sum_plan
from thalweg_cluster.update import UpdatePass, norm
from thalweg_proto.shared_memory import CHUNK, MemoryPlan, Vectors, create_segment

SIZE, V, RATE = 3 * CHUNK + 48, 3, 0.1
Ranges = list[tuple[int, int]]
Step = tuple[np.ndarray, dict[str, np.ndarray], float]
"""The parameters after some steps, the rule's state, and the norm of the last gradient."""


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch):
    """A block is a chunk, and as many threads are used as are asked for."""
    monkeypatch.setattr("thalweg_cluster.update.BLOCK", CHUNK)
    monkeypatch.setattr("thalweg_cluster.update.ALONE", 0)


def in_one_pass(
    start: np.ndarray, given: list[np.ndarray], rule: Rule, averaged: Ranges, clip: float, cuts: tuple[int, ...] = ()
) -> Step:
    """As workers do it that meet, with shares that end at the chunks `cuts`."""
    plan = MemoryPlan(size=len(start), microbatches=len(given[0]), slots=len(rule.slots))
    fd = create_segment(plan.vector_bytes, plan.spare_bytes)
    vectors = Vectors(plan, fd)
    os.close(fd)
    vectors.gradient(-1, 0)[...] = start
    for array, slot in zip(vectors.state(0), rule.slots, strict=True):
        array.fill(slot.initial_value)
    squares = np.zeros(plan.chunks)
    bounds = [0, *cuts, plan.chunks]
    passes = [
        UpdatePass(plan, vectors, rule, chunks=range(*of), squares=squares, threads=2, averaged=averaged)
        for of in pairwise(bounds)
    ]
    for step, gradients in enumerate(given):
        for place, gradient in zip(vectors.gradients(step), gradients, strict=True):
            place[...] = gradient
        if clip:
            for each in passes:
                each.measure(step)
        factor = clip / (norm(squares) + 1e-6) if clip and norm(squares) > clip else None
        for each in passes:
            assert each.apply(step, RATE, summed=bool(clip), factor=factor, note_squares=not clip)
    for each in passes:
        each.close()
    state = {slot.name: array for slot, array in zip(rule.slots, vectors.state(len(given)), strict=True)}
    return vectors.version(len(given)), state, norm(squares)


def by_owners(
    start: np.ndarray, given: list[np.ndarray], rule: Rule, averaged: Ranges, clip: float, cuts: tuple[int, ...] = ()
) -> Step:
    """As servers of several hosts do it, whose shards end at the chunks `cuts`, in blocks of a chunk."""
    bounds = [0, *(CHUNK * cut for cut in cuts), len(start)]
    options = {"block": CHUNK, "leaves": len(given[0]), "averaged": averaged}
    shards = [owner.Shard(*of, TrainingState.new(start), rule, **options) for of in pairwise(bounds)]
    plan = sum_plan(microbatch_leaves(len(given[0])))
    for step, gradients in enumerate(given):
        values, summed = [], {}
        for shard in shards:
            for begin in range(shard.begin, shard.end, CHUNK):
                cut = slice(begin, min(begin + CHUNK, shard.end))
                summed[begin] = shard.sum(plan, [gradient[cut].copy() for gradient in gradients])
                shard.set_aside(begin, summed[begin])
                values += owner.squares(summed[begin])
        length = norm(np.array(values))
        factor = clip / (length + 1e-6) if clip and length > clip else None
        for shard in shards:
            for begin in range(shard.begin, shard.end, CHUNK):
                assert shard.apply(begin, summed[begin], shard.block_update(step, RATE), factor)
    state = {slot.name: np.concatenate([shard.state[slot.name] for shard in shards]) for slot in rule.slots}
    return np.concatenate([shard.parameters for shard in shards]), state, length


def by_the_letter(start: np.ndarray, given: list[np.ndarray], rule: Rule, averaged: Ranges, clip: float) -> Step:
    """The rule on a vector of the trained elements alone, and old - sum for the others."""
    mean = np.zeros(len(start), bool)
    for begin, end in averaged:
        mean[begin:end] = True
    parameters = start.copy()
    state = [np.full(np.count_nonzero(~mean), slot.initial_value, np.float32) for slot in rule.slots]
    scratch = [np.empty(np.count_nonzero(~mean), np.float32) for _ in range(rule.scratch)]
    for step, (a, b, c) in enumerate(given):
        total = (a + b) + c
        gradient = total[~mean]
        length = norm(np.array(owner.squares(np.where(mean, np.float32(0), total))))
        assert length == pytest.approx(float(np.linalg.norm(gradient.astype(float))), rel=1e-5)
        if clip and length > clip:
            gradient = gradient * np.float32(clip / (length + 1e-6))
        rule.block_update(step, RATE)(parameters[~mean], gradient, state, state, scratch)
        parameters[~mean] = gradient
        parameters[mean] -= total[mean]
    whole = {slot.name: np.zeros(len(start), np.float32) for slot in rule.slots}
    for array, slot in zip(state, rule.slots, strict=True):
        whole[slot.name][~mean] = array
    return parameters, whole, length


every_way = pytest.mark.parametrize("way", [in_one_pass, by_owners])


@every_way
def test_a_statistic_is_averaged_and_the_rest_is_clipped_decayed_and_moved_by_hand(way):
    """Two microbatches; the gradient of the trained elements, (3, 4), is shortened from 5 to 2.5, and the statistic's
    10 becomes 10 - (0.5 + 1.0)."""
    start = np.float32([1, 2, 10, 4])
    given = [np.float32([[1, 1, 0.5, 0], [2, 3, 1.0, 0]])]
    rule = make_rule("momentum", {"momentum": 0.5, "weight_decay": 0.5})
    parameters, state, length = way(start, given, rule, [(2, 3)], 2.5)
    assert length == 5
    np.testing.assert_allclose(state["momentum_buffer"], [2, 3, 0, 2], rtol=1e-6)  # 1.5 + 0.5 * 1, 2 + 0.5 * 2, ...
    np.testing.assert_allclose(parameters, [1 - 0.2, 2 - 0.3, 8.5, 4 - 0.2], rtol=1e-6)


def ranges(inner: set[int]) -> Ranges:
    """Every other piece between these ends."""
    return list(pairwise(sorted(inner)))[::2]


RANGES = st.sets(st.integers(0, SIZE), max_size=9).map(ranges)


@every_way
@given(
    averaged=RANGES,
    rule=st.sampled_from(sorted(RULES)),
    clip=st.sampled_from([0.0, 30.0]),
    cuts=st.sampled_from([(), (1,), (1, 3)]),
)
def test_averaged_ranges_are_old_minus_the_sum_and_the_others_the_rule_of_what_is_left(
    way: Callable[..., Step], averaged, rule, clip, cuts
):
    """To the bit, in whatever ranges, shares and shards."""
    rng = np.random.default_rng(0)
    start = rng.standard_normal(SIZE, dtype=np.float32)
    given = [rng.standard_normal((V, SIZE), dtype=np.float32) for _ in range(3)]
    decayed = make_rule(rule, {"weight_decay": 0.1})
    found, state, length = way(start, given, decayed, averaged, clip, cuts)
    expected, expected_state, expected_length = by_the_letter(start, given, decayed, averaged, clip)
    assert length == expected_length
    np.testing.assert_array_equal(found, expected)
    for name, array in expected_state.items():
        np.testing.assert_array_equal(state[name], array)


@settings(max_examples=25)
@given(averaged=RANGES, clip=st.sampled_from([0.0, 30.0]))
def test_neither_shares_nor_shards_change_the_bits(averaged, clip):
    """All of it on one thread pool, shares that end at chunks, owners: one result, and one norm."""
    rng = np.random.default_rng(1)
    start = rng.standard_normal(SIZE, dtype=np.float32)
    given = [rng.standard_normal((V, SIZE), dtype=np.float32) for _ in range(2)]
    found = set()
    for way in (in_one_pass, by_owners):
        for cuts in ((), (2,), (1, 3)):
            parameters, _, length = way(start, given, make_rule("adam", {}), averaged, clip, cuts)
            found.add((parameters.tobytes(), length))
    assert len(found) == 1


def test_what_is_averaged_within_a_block_is_cut_at_its_ends():
    """Ranges before, across both ends, within and behind [10, 20)."""
    assert averaged_within([(0, 10), (20, 30)], 10, 20) is None
    block, left = np.arange(10, dtype=np.float32), np.zeros(10, np.float32)
    for inside in ([(5, 12), (14, 15), (19, 25)], [(10, 12), (14, 15), (19, 20)]):
        averaged = averaged_within(inside, 10, 20)
        summed = np.ones(10, np.float32)
        averaged.set_aside(block, summed)
        np.testing.assert_array_equal(summed, [0, 0, 1, 1, 0, 1, 1, 1, 1, 0])
        parameters, state = left.copy(), [np.ones(10, np.float32)]
        averaged.put_back(parameters, state)
        np.testing.assert_array_equal(parameters, [-1, 0, 0, 0, 3, 0, 0, 0, 0, 8])
        np.testing.assert_array_equal(state[0], summed)


def test_a_step_that_is_skipped_leaves_what_is_averaged():
    """And the next one begins anew: nothing is left of what was set aside."""
    shard = owner.Shard(
        0, 4, TrainingState.new(np.ones(4, np.float32)), make_rule("sgd", {}), block=4, leaves=1, averaged=[(0, 2)]
    )
    gradient = np.full(4, 0.5, np.float32)
    shard.set_aside(0, gradient)
    shard.keep(0, gradient)
    np.testing.assert_array_equal(gradient, 1)
    gradient[...] = 0.25
    shard.set_aside(0, gradient)
    assert shard.apply(0, gradient, shard.block_update(0, 1.0))
    np.testing.assert_array_equal(shard.parameters, 0.75)


@every_way
def test_a_statistic_that_is_not_finite_is_found(way):
    """The rule does not hide it."""
    for bad in (np.nan, np.inf):
        given = [np.zeros((V, 8), np.float32)]
        given[0][1, 2] = bad
        with pytest.raises(AssertionError):
            way(np.zeros(8, np.float32), given, make_rule("momentum", {}), [(2, 4)], 0.0)
