"""Statistics: those of the training rows, exact for constant features, whatever the size of chunks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from thalweg_worker.datasets import scaling
from thalweg_worker.datasets.rows import Rows, all_rows, split
from thalweg_worker.datasets.scaling import Scaling, measure
from thalweg_worker.datasets.source import Source
from thalweg_worker.datasets.stored import StoredArray

DTYPES = [np.uint8, np.int32, np.float16, np.float32, np.float64]


def source(x: NDArray[Any], columns: tuple[str, ...] | None = None) -> Source:
    y = StoredArray(np.zeros(len(x)))
    return Source(field="data.train", field_y="data.train", x=StoredArray(x), y=y, columns=columns)


def found(x: NDArray[Any], scale: Any = "standard", rows: Rows | None = None) -> Scaling:
    measured, problems = measure(source(x), rows or all_rows(len(x)), scale)
    assert problems == []
    assert measured is not None
    return measured


def test_a_small_case_by_hand() -> None:
    """Mean and deviation, least and width, and factor 1 where a feature never changes."""
    x = np.array([[1.0, 5.0], [3.0, 5.0]])
    assert (found(x).offset.tolist(), found(x).factor.tolist()) == ([2, 5], [1, 1])
    assert (found(x, "0-1").offset.tolist(), found(x, "0-1").factor.tolist()) == ([1, 5], [0.5, 1])
    assert measure(source(x), all_rows(2), "none") == (None, [])


@settings(max_examples=60, deadline=None)
@given(
    shape=st.sampled_from([(7, 3), (40, 1), (33, 4, 5), (20, 3, 2, 3), (5, 2, 2, 2, 2)]),
    dtype=st.sampled_from(DTYPES),
    seed=st.integers(0, 2**32 - 1),
    chunk_rows=st.integers(1, 50),
    scale=st.sampled_from(["standard", "0-1"]),
)
def test_statistics_are_numpys_over_the_training_rows(
    shape: tuple[int, ...], dtype: Any, seed: int, chunk_rows: int, scale: str
) -> None:
    """One pass in chunks finds what NumPy finds at once in float64, for each feature, image or channel."""
    x = (np.random.default_rng(seed).normal(size=shape) * 30 + 100).astype(dtype)
    rows, _ = split(len(x), 0.3, seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scaling, "CHUNK_ROWS_MIN", chunk_rows)
        patch.setattr(scaling, "CHUNK_ELEMENTS", 1)
        measured = found(x, scale, rows)
    trained = x[rows.mask(0, len(x))].astype(np.float64)
    axis: Any = 0 if x.ndim == 2 else tuple(range(x.ndim)) if x.ndim == 3 else tuple(range(x.ndim - 1))
    if scale == "standard":
        offset, width = trained.mean(axis), trained.std(axis)
    else:
        offset, width = trained.min(axis), np.ptp(trained, axis)
    width = np.where(width == 0, 1, width)
    np.testing.assert_allclose(measured.offset, offset, rtol=1e-12)
    np.testing.assert_allclose(measured.factor, 1 / width, rtol=1e-10)


@pytest.mark.parametrize("shape", [(1000, 2), (1000, 7, 7), (1000, 7, 7, 3)])
def test_a_constant_feature_becomes_exactly_zero(shape: tuple[int, ...]) -> None:
    """0.1 is no binary fraction, yet a feature that is always 0.1 has deviation 0 and factor 1."""
    x = np.full(shape, 0.1)
    measured = found(x)
    assert (measured.factor == 1).all()
    out = np.empty(shape, np.float32)
    measured.conversion(x.dtype)(x, out)
    assert not out.any()


def test_a_large_offset_costs_no_digits() -> None:
    """Seconds since 1970, a second apart, are told apart after scaling, although float32 cannot hold them."""
    x = 1.7e9 + np.arange(100.0)[:, None]
    out = np.empty(x.shape, np.float32)
    found(x).conversion(x.dtype)(x, out)
    np.testing.assert_allclose(out, (x - x.mean()) / x.std(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("dtype", DTYPES)
def test_conversion_leaves_its_input_alone(dtype: Any) -> None:
    """It writes (x - offset) * factor and nothing else."""
    x = np.arange(6).reshape(3, 2).astype(dtype)
    before, out = x.copy(), np.empty((3, 2), np.float32)
    Scaling(offset=np.array([1.0, 2.0]), factor=np.array(0.5)).conversion(x.dtype)(x, out)
    np.testing.assert_array_equal(out, [[-0.5, -0.5], [0.5, 0.5], [1.5, 1.5]])
    np.testing.assert_array_equal(x, before)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("scale", ["none", "standard", "0-1"])
def test_a_number_that_is_not_finite_is_named_by_row_and_column(value: float, dtype: Any, scale: Any) -> None:
    """In every row, held out or not, and in whatever chunk."""
    x = np.zeros((50_000, 8), dtype)
    x[45_678, 5] = value
    _, problems = measure(source(x), split(len(x), 0.5, 0)[0], scale)
    assert [str(problem) for problem in problems] == [
        f"data.train: expected finite numbers; found {dtype(value)} in row 45678, column 5"
    ]


def test_places_have_names_and_axes() -> None:
    """Columns of a table are named, and pixels have their position."""
    x = np.zeros((3, 2, 4))
    x[2, 1, 3] = np.nan
    assert "row 2, position (1, 3)" in str(measure(source(x), all_rows(3), "none")[1][0])
    table = source(np.array([[0.0, np.nan]]), columns=("age", "height"))
    assert 'row 0, column "height"' in str(measure(table, all_rows(1), "none")[1][0])


def test_a_number_beyond_float32_is_named() -> None:
    """1e39 is finite in a file of float64, and infinite to the model; sums of large numbers are no reason to refuse."""
    x = np.array([[1.0], [1e39]])
    assert "within float32's range; found 1e+39 in row 1" in str(measure(source(x), all_rows(2), "none")[1][0])
    assert measure(source(np.full((4, 2), 1e38)), all_rows(4), "none")[1] == []
