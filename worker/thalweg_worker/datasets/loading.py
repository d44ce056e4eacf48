"""From the [data] section of a job to its training and evaluation sets, in the driver, before anything starts."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from thalweg_proto.errors import InputError, Problem, attempt
from thalweg_proto.job import ArrayPair, DataSection
from thalweg_worker.batch import DataSpec
from thalweg_worker.datasets.dataset import Dataset, target_dtype
from thalweg_worker.datasets.gather import label_conversion, sample_conversion
from thalweg_worker.datasets.labels import Labels, check_eval_labels, flat_labels, understand
from thalweg_worker.datasets.reading import read_source
from thalweg_worker.datasets.ready import convert_once
from thalweg_worker.datasets.rows import Rows, all_rows, check_split, split
from thalweg_worker.datasets.scaling import Scaling, measure
from thalweg_worker.datasets.source import Source
from thalweg_worker.datasets.stored import StoredArray


@dataclass(frozen=True, kw_only=True)
class TrainEval:
    """The data of a job.

    eval:        None where nothing is held out
    class_names: the labels of the classes 0 .. k-1 as text; () for a regression
    scaling:     what was done to the features, for whoever feeds the trained model; None: nothing
    """

    train: Dataset
    eval: Dataset | None
    spec: DataSpec
    class_names: tuple[str, ...]
    scaling: Scaling | None


def load_dataset(data: DataSection, seed: int) -> TrainEval:
    """Read and check the data of a job; `seed` decides which rows are held out.

    Raises InputError with the problems of all files. What is mapped (.npy, and idx that is not gzipped) is read
    through once, in bounded memory.
    """
    problems: list[Problem] = []
    source = attempt(problems, lambda: _read("data.train", data.train, data.label))
    second: Source | None = None
    if not isinstance(data.eval, float):
        second_data = data.eval
        second = attempt(problems, lambda: _read("data.eval", second_data, data.label))
    if source is None or problems:
        raise InputError(problems)

    rows, eval_rows = all_rows(len(source.x.array)), None
    if isinstance(data.eval, float) and data.eval > 0:
        problems += check_split(rows.size, data.eval)
        rows, eval_rows = split(rows.size, data.eval, seed)
    labels, label_problems = understand(source, data.task)
    scaling, number_problems = measure(source, rows, data.scale)
    problems += label_problems + number_problems
    spec = _spec(source, labels, data)
    if second is not None:
        second = _arrange(second, source, labels)
        problems += _check_alike(second, source, spec)
        problems += check_eval_labels(second, labels) if not label_problems else []
        problems += measure(second, all_rows(len(second.x.array)), "none")[1]
    if problems:
        raise InputError(problems)

    train = _dataset(source, rows, spec, labels, scaling)
    evaluation = None
    if second is not None:
        evaluation = _dataset(second, all_rows(len(second.x.array)), spec, labels, scaling)
    elif eval_rows is not None:
        evaluation = replace(train, rows=eval_rows)
    return TrainEval(train=train, eval=evaluation, spec=spec, class_names=labels.names, scaling=scaling)


def _read(field: str, data: str | ArrayPair, label: str) -> Source:
    source = read_source(field, data, label)
    source = replace(source, y=flat_labels(source.y))
    x, y = source.x.array, source.y.array
    problems = []
    if x.ndim < 2:
        hint = "one row for each sample: x.reshape(-1, 1) where a sample is one number"
        problems.append(Problem(source.field, "samples of shape (N, ...)", f"shape {x.shape}", hint))
    if len(x) != len(y):
        problems.append(Problem(source.field_y, f"a label for each of the {len(x)} samples", f"{len(y)} labels"))
    if problems:
        raise InputError(problems)
    return source


def _spec(source: Source, labels: Labels, data: DataSection) -> DataSpec:
    """Whole numbers of 4 or 8 bytes that are not to be scaled are tokens; all others become float32."""
    x, y = source.x.array, source.y.array
    tokens = x.dtype.kind in "iu" and x.itemsize >= 4 and data.scale == "none"
    return DataSpec(
        input_shape=x.shape[1:],
        input_dtype="int64" if tokens else "float32",
        task=labels.task,
        classes=len(labels.names),
        target_shape=y.shape[1:],
    )


def _arrange(second: Source, source: Source, labels: Labels) -> Source:
    """The second set with columns in the training file's order, and with text labels where it has text."""
    columns, x, y = second.columns, second.x, second.y
    if columns and source.columns and columns != source.columns and set(columns) == set(source.columns):
        order = [columns.index(name) for name in source.columns]
        columns, x = source.columns, StoredArray(x.array[:, order])
    if labels.classes is not None and labels.classes.dtype.kind == "U" and y.array.dtype.kind == "i":
        # A .csv file in which only number-like labels happen to occur.
        y = StoredArray(y.array.astype(np.str_))
    return replace(second, columns=columns, x=x, y=y)


def _check_alike(second: Source, source: Source, spec: DataSpec) -> list[Problem]:
    x, problems = second.x.array, []
    if second.columns != source.columns and second.columns and source.columns:
        missing = sorted(set(source.columns) - set(second.columns))
        unknown = sorted(set(second.columns) - set(source.columns))
        found = "; ".join(f"{what} {', '.join(names)}" for what, names in (("no", missing), ("also", unknown)) if names)
        problems.append(Problem(second.field, "the columns of data.train", found))
    elif x.shape[1:] != spec.input_shape:
        expected = f"samples of the shape {spec.input_shape} of data.train"
        problems.append(Problem(second.field, expected, f"{x.shape[1:]}"))
    if not np.can_cast(x.dtype, spec.input_dtype, "same_kind"):
        problems.append(Problem(second.field, "whole numbers (tokens), as in data.train", f"{x.dtype}"))
    if second.y.array.shape[1:] != spec.target_shape:
        expected = f"labels of the shape {spec.target_shape} of data.train"
        problems.append(Problem(second.field_y, expected, f"{second.y.array.shape[1:]}"))
    return problems


def _dataset(source: Source, rows: Rows, spec: DataSpec, labels: Labels, scaling: Scaling | None) -> Dataset:
    classes = None if labels.are_indices else labels.classes
    dtype_x, dtype_y = np.dtype(spec.input_dtype), target_dtype(spec)
    convert_x = sample_conversion(source.x.array.dtype, dtype_x, scaling)
    convert_y = label_conversion(source.y.array.dtype, dtype_y, classes)
    x = convert_once(source.field, source.x, convert_x, dtype_x)
    y = convert_once(source.field_y, source.y, convert_y, dtype_y)
    return Dataset(
        spec=spec,
        x=x or source.x,
        y=y or source.y,
        rows=rows,
        scaling=scaling if x is None else None,
        classes=classes if y is None else None,
    )
