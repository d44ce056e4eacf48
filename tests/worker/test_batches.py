"""Batches to try a model on."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from thalweg_proto.errors import InputError, Problem
from thalweg_worker.batch import DataSpec
from thalweg_worker.batches import BatchSource, made_up_batch
from thalweg_worker.sampler import Sampler


@pytest.mark.parametrize(
    ("spec", "dtypes", "target_shape"),
    [
        (DataSpec(input_shape=(3, 2), task="classification", classes=5), (np.float32, np.int64), ()),
        (DataSpec(input_shape=(7,), input_dtype="int64", task="classification", classes=5), (np.int64, np.int64), ()),
        (
            DataSpec(input_shape=(7,), input_dtype="int64", task="classification", classes=5, target_shape=(7,)),
            (np.int64, np.int64),
            (7,),
        ),
        (DataSpec(input_shape=(7,), task="regression", target_shape=(2,)), (np.float32, np.float32), (2,)),
    ],
)
def test_a_made_up_batch_looks_like_the_data(
    spec: DataSpec, dtypes: tuple[type, type], target_shape: tuple[int, ...]
) -> None:
    """Shapes and dtypes are those of a training batch; whole numbers are tokens and classes that there are."""
    batch = made_up_batch(spec)
    assert (batch.x.dtype, batch.y.dtype) == dtypes
    assert (batch.x.shape[1:], batch.y.shape[1:]) == (spec.input_shape, target_shape)
    assert len(batch.x) == len(batch.y) > 1
    assert batch.key is not None
    for array in (batch.x, batch.y):
        assert np.isfinite(array).all()
        assert array.any() if array.dtype == np.float32 else not array.any()


class Told:
    """Samples that are fetched apart; `expected` and `drawn` are (step, microbatch)."""

    def __init__(self, sampler: Sampler, apart: bool = True) -> None:
        self.spec = DataSpec(input_shape=(1,), task="classification", classes=2)
        self.apart = apart
        self.expected: list[tuple[int, int]] = []
        self.drawn: list[tuple[int, int]] = []
        units = [(step, m) for step in range(9) for m in range(sampler.microbatches)]
        self._units = {sampler.indices(*unit).tobytes(): unit for unit in units}

    def __len__(self) -> int:
        return 64

    def ahead(self, batches: Any) -> None:
        self.expected = [self._units[rows.tobytes()] for rows in batches]

    def take(self, rows: Any, x: Any, y: Any) -> None:
        self.drawn.append(self._units[rows.tobytes()])

    def to_shipment(self) -> Any: ...


@pytest.fixture
def sampler() -> Sampler:
    return Sampler(0, samples=64, batch_size=8, microbatches=4)


def test_what_a_step_begins_with_is_expected_and_the_same_of_the_next_one(sampler: Sampler) -> None:
    """What was drawn is not expected again; what another worker takes, or leaves, is a matter of one step."""
    told = Told(sampler)
    source = BatchSource(told, sampler)
    source.expect([0, 1])
    source.begin(3, [0, 1])
    assert told.expected == [(3, 0), (3, 1), (4, 0), (4, 1)]
    source.take(3, 1)
    source.take(3, 3)  # another's, for once
    source.begin(3, [0, 1, 2])  # those who meet have changed
    assert told.expected == [(3, 0), (3, 2), (4, 0), (4, 1), (4, 2)]
    source.begin(4, [2])
    assert told.expected == [(4, 2), (5, 2)]
    source.take(4, 2)
    assert told.drawn == [(3, 1), (3, 3), (4, 2)]


def test_nothing_is_drawn_early_where_samples_are_fetched_apart(sampler: Sampler) -> None:
    """A worker that waits for others must not wait for samples, too."""
    told, plain = Told(sampler), Told(sampler, apart=False)
    for samples in (told, plain):
        source = BatchSource(samples, sampler)
        source.begin(0, [0, 1])
        source.draw_early(1, 0)
    assert (told.drawn, plain.drawn) == ([], [(1, 0)])
    assert plain.expected == []


def test_a_sample_of_no_use_is_told_with_the_step_that_needs_it(sampler: Sampler) -> None:
    """Beside what the set says of it."""
    told: Any = Told(sampler)

    def refuse(*_: Any) -> None:
        raise InputError([Problem("data.train, sample 7", "finite numbers", "nan at (1,)")])

    told.take = refuse
    with pytest.raises(InputError, match=r"sample 7: expected finite numbers; found nan at \(1,\), in microbatch 2 of"):
        BatchSource(told, sampler).take(5, 2)
