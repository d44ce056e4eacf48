"""Labels: what they mean, and which are of no use."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from thalweg_worker.datasets import labels as module
from thalweg_worker.datasets.labels import Labels, check_eval_labels, flat_labels, understand
from thalweg_worker.datasets.source import Source
from thalweg_worker.datasets.stored import StoredArray


def source(y: Any) -> Source:
    array: NDArray[Any] = np.asarray(y)
    x = StoredArray(np.zeros((len(array), 1)))
    return Source(field="data.train.x", field_y="data.train.y", x=x, y=StoredArray(array))


@pytest.mark.parametrize(
    ("y", "task", "meaning", "names"),
    [
        ([2, 0, 1], "auto", "classification", ("0", "1", "2")),
        ([7, 3, 7], "auto", "classification", ("3", "7")),
        (["b", "a", "c"], "auto", "classification", ("a", "b", "c")),
        ([True, False], "auto", "classification", ("False", "True")),
        ([0.5, 1.0], "auto", "regression", ()),
        ([0.0, 1.0], "classification", "classification", ("0.0", "1.0")),
        ([1, 2], "regression", "regression", ()),
        ([[1.0, 2.0]], "auto", "regression", ()),
    ],
)
def test_labels_mean_classes_or_targets(y: Any, task: Any, meaning: str, names: tuple[str, ...]) -> None:
    """Whole numbers and text are classes, sorted; other numbers are targets; the task overrides that."""
    labels, problems = understand(source(y), task)
    assert (labels.task, labels.names, problems) == (meaning, names, [])


def test_only_labels_from_0_without_gaps_are_class_indices() -> None:
    """Others have to be looked up."""
    for y, are_indices in (([0, 1, 2], True), ([0, 2], False), ([1, 2], False), (["0", "1"], False)):
        assert understand(source(y), "auto")[0].are_indices == are_indices
    assert not Labels(task="regression").are_indices


def test_classes_are_found_chunk_by_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    """The distinct labels do not depend on how the scan is cut."""
    monkeypatch.setattr(module, "CHUNK_ROWS", 7)
    y = np.random.default_rng(0).integers(0, 30, 1000)
    labels, _ = understand(source(y), "auto")
    assert labels.classes is not None
    np.testing.assert_array_equal(labels.classes, np.unique(y))


@pytest.mark.parametrize(
    ("y", "task", "text"),
    [
        ([0, 1, -1], "auto", "labels >= 0; found -1 in row 2\n    labels out of range"),
        ([3, 3], "auto", "at least 2 classes; found only 3"),
        ([0.5, 1.0], "classification", "whole numbers or text as classes; found 0.5 in row 0"),
        ([0.0, np.nan], "classification", "found nan in row 1"),
        ([0.0, np.nan], "auto", "finite numbers; found nan in row 1"),
        ([[0.0, 1.0], [np.inf, 1.0]], "auto", "found inf in row 1, column 0"),
        ([0.0, 1e300], "auto", "found 1e+300 in row 1"),
        (["a", "b"], "regression", "numbers as targets of a regression; found text"),
        ([[0, 1], [1, 0]], "auto", "one label for each sample; found shape (2, 2)"),
        (range(70_000), "auto", "at most 65536 classes; found more"),
    ],
)
def test_labels_of_no_use_are_named(y: Any, task: Any, text: str) -> None:
    """The problem is that of the labels' file, with row and value."""
    _, problems = understand(source(y), task)
    assert [problem.field for problem in problems] == ["data.train.y"]
    assert text in str(problems[0])


def test_labels_that_training_never_sees_are_out_of_range() -> None:
    """A second set may have fewer classes, not others."""
    labels, _ = understand(source([1, 3, 5]), "auto")
    assert check_eval_labels(source([5, 5, 1]), labels) == []
    text = str(check_eval_labels(source([1, 4]), labels)[0])
    assert "labels of data.train (1, 3, 5); found 4 in row 1\n    labels out of range" in text
    assert "labels like those of data.train" in str(check_eval_labels(source(["a"]), labels)[0])


def test_a_column_of_labels_is_a_list_of_labels() -> None:
    """Labels of shape (N, 1) count as (N,); targets keep their shape."""
    assert flat_labels(StoredArray(np.zeros((3, 1), int))).array.shape == (3,)
    assert flat_labels(StoredArray(np.zeros((3, 1)))).array.shape == (3, 1)
    assert flat_labels(StoredArray(np.zeros((3, 2), int))).array.shape == (3, 2)
