"""Batches to try a model on."""

from __future__ import annotations

import numpy as np
import pytest

from thalweg_worker.batch import DataSpec
from thalweg_worker.batches import made_up_batch


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
