"""The sampler in small cases: slices, epochs, limits, the stream of one worker."""

from __future__ import annotations

import dataclasses
import pickle

import numpy as np
import pytest

from thalweg_worker.permutation import Permutation, splitmix64, word
from thalweg_worker.sampler import Sampler, SampleStream


def batch(sampler: Sampler, step: int) -> list[int]:
    return [row for m in range(sampler.microbatches) for row in sampler.indices(step, m).tolist()]


def test_microbatches_slice_the_batch_evenly() -> None:
    """Ten samples in four microbatches: [0, 2), [2, 5), [5, 7), [7, 10)."""
    sampler = Sampler(0, samples=100, batch_size=10, microbatches=4)
    assert [sampler.slice(m) for m in range(4)] == [(0, 2), (2, 5), (5, 7), (7, 10)]
    assert [sampler.size(m) for m in range(4)] == [2, 3, 2, 3]
    assert [sampler.indices(0, m).size for m in range(4)] == [2, 3, 2, 3]


def test_a_batch_crosses_into_the_next_epoch() -> None:
    """With 4 samples and batches of 3, steps 0 to 3 are three epochs, and 1 and 2 cross."""
    sampler = Sampler(5, samples=4, batch_size=3, microbatches=1)
    stream = [row for step in range(4) for row in batch(sampler, step)]
    assert [sorted(stream[i : i + 4]) for i in (0, 4, 8)] == [[0, 1, 2, 3]] * 3
    assert [sampler.epoch(step) for step in range(5)] == [0, 0, 1, 2, 3]


def test_an_epoch_is_the_permutation_of_its_key() -> None:
    """Epoch e is Permutation(key_e, N); key_e is draw e of a splitmix64 seeded by the seed's first draw."""
    sampler = Sampler(9, samples=50, batch_size=50, microbatches=1)
    keys = splitmix64(splitmix64(word(9), word(0)), np.arange(3, dtype=np.uint64))
    for epoch, key in enumerate(keys.tolist()):
        assert np.array_equal(sampler.indices(epoch, 0), Permutation(key, 50)(np.arange(50)))


def test_a_batch_may_hold_several_epochs() -> None:
    """With 3 samples and batches of 7, each sample comes two or three times in a batch."""
    counts = np.bincount(batch(Sampler(0, samples=3, batch_size=7, microbatches=2), 0), minlength=3)
    assert sorted(counts.tolist()) == [2, 2, 3]


def test_batch_size_one_walks_the_epoch() -> None:
    """True SGD: N steps of one sample are one epoch."""
    sampler = Sampler(1, samples=6, batch_size=1, microbatches=1)
    assert sorted(batch(sampler, step)[0] for step in range(6)) == [0, 1, 2, 3, 4, 5]


def test_one_sample_is_always_the_same() -> None:
    """A training set of one row gives that row only."""
    assert batch(Sampler(0, samples=1, batch_size=4, microbatches=4), 10) == [0, 0, 0, 0]


def test_the_rows_are_pinned() -> None:
    """The answers never change between releases: a resumed job must go on with the same samples."""
    sampler = Sampler(0, samples=60_000, batch_size=8, microbatches=2)
    assert batch(sampler, 0) == [1520, 21856, 41244, 58285, 33004, 2581, 18814, 28454]
    assert batch(sampler, 10**6) == [48432, 31583, 13492, 44542, 34878, 21187, 45322, 34767]


def test_seeds_and_epochs_differ() -> None:
    """Another seed is another stream; another epoch is another order."""
    first = Sampler(0, samples=1000, batch_size=1000, microbatches=1)
    other = dataclasses.replace(first, seed=1)
    orders = [first.indices(0, 0), first.indices(1, 0), other.indices(0, 0), other.indices(1, 0)]
    for i, order in enumerate(orders):
        assert np.array_equal(np.sort(order), np.arange(1000))
        assert all(np.mean(order == later) < 0.02 for later in orders[i + 1 :])


@pytest.mark.parametrize(
    ("field", "value"),
    [("samples", 0), ("samples", 2**62 + 1), ("batch_size", 0), ("microbatches", 0), ("microbatches", 9)],
)
def test_sizes_out_of_range_are_refused(field: str, value: int) -> None:
    """A field that cannot be raises ValueError with its name and what was found."""
    sizes = {"samples": 10, "batch_size": 8, "microbatches": 2, field: value}
    with pytest.raises(ValueError, match=f"{field} .* found {value}"):
        Sampler(0, **sizes)


def test_what_lies_outside_is_refused() -> None:
    """A negative step, no such microbatch, a position beyond 2**63: each raises; the last step does not."""
    sampler = Sampler(0, samples=10**12, batch_size=2**40, microbatches=2**30)
    stream = SampleStream(sampler, [3])
    for indices in (sampler.indices, stream.indices):
        with pytest.raises(IndexError, match="step must be >= 0"):
            indices(-1, 3)
        with pytest.raises(OverflowError, match="beyond 2\\*\\*63"):
            indices(2**23 - 1, 3)
        assert indices(2**23 - 2, 3).shape == (2**10,)
    with pytest.raises(IndexError, match="microbatch must lie"):
        sampler.indices(0, 2**30)
    with pytest.raises(IndexError, match="microbatch must lie"):
        SampleStream(sampler, [-1])
    with pytest.raises(KeyError):
        stream.indices(0, 4)


def test_a_stream_hands_out_views_that_stay() -> None:
    """A view is read-only, and keeps its rows when the stream moves on."""
    sampler = Sampler(0, samples=500, batch_size=64, microbatches=2)
    stream = SampleStream(sampler, [1])
    view = stream.indices(0, 1)
    before = view.copy()
    with pytest.raises(ValueError, match="read-only"):
        view[0] = 0
    stream.indices(10**6, 1)
    assert np.array_equal(view, before)
    assert np.array_equal(stream.indices(0, 1), before)


def test_a_stream_of_nothing_is_allowed() -> None:
    """A worker without microbatches has an empty stream."""
    assert SampleStream(Sampler(0, samples=5, batch_size=5, microbatches=5), []).microbatches == ()


def test_a_sampler_is_a_value() -> None:
    """It is frozen, equal by its fields, and travels to a Ray worker."""
    sampler = Sampler(3, samples=10, batch_size=5, microbatches=2)
    assert pickle.loads(pickle.dumps(sampler)) == sampler
    with pytest.raises(dataclasses.FrozenInstanceError):
        sampler.seed = 4  # type: ignore[misc]  # the assignment that must fail
