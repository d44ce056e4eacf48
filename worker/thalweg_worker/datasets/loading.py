"""From the [data] section of a job to its training and evaluation sets, in the driver, before anything starts."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Literal

import numpy as np

from thalweg_proto.errors import InputError, Problem, attempt
from thalweg_proto.job import ArrayPair, DataSection, is_function, is_text
from thalweg_worker.batch import DataSpec
from thalweg_worker.datasets.dataset import Dataset, target_dtype
from thalweg_worker.datasets.function_loading import load_functions
from thalweg_worker.datasets.gather import label_conversion, sample_conversion
from thalweg_worker.datasets.labels import Labels, check_eval_labels, flat_labels, understand
from thalweg_worker.datasets.loaded import Loaded, TrainEval
from thalweg_worker.datasets.reading import read_source
from thalweg_worker.datasets.ready import convert_once
from thalweg_worker.datasets.rows import Rows, all_rows, rows_of
from thalweg_worker.datasets.scaling import Scaling, input_dtype, measure
from thalweg_worker.datasets.source import Source
from thalweg_worker.datasets.stored import StoredArray
from thalweg_worker.datasets.text import in_vocabulary


def load_dataset(
    data: DataSection, seed: int, wrong: Collection[str] = (), *, instead: str | ArrayPair | None = None
) -> Loaded:
    """Read and check the data of a job; `seed` decides which rows are held out. Raises nothing.

    wrong:   keys of `data` whose values mean nothing: what needs one is left out, all else is looked at
    instead: a set to evaluate on in place of the job's own, which problems call `--data`; what is trained on, and so
             scaling and classes, is the same

    What is mapped (.npy, and idx that is not gzipped) is read through once, in bounded memory.
    """
    other = _other_set(data, wrong, instead)
    if "train" not in wrong and is_function(data.train):
        return load_functions(data, seed, wrong, other)
    problems: list[Problem] = []
    source = second = None
    label, context = (None if key in wrong else getattr(data, key) for key in ("label", "context"))
    train = None if "train" in wrong else data.train
    if train is not None:
        source = attempt(problems, lambda: _read("data.train", data.train, label, context))
    if other is not None:
        key, named = other
        second = attempt(problems, lambda: _read_second(key, named, train, label, context))
    if source is None:
        return Loaded(problems=(*problems, *_unusable_numbers(second)))

    fraction = data.eval if "eval" not in wrong and isinstance(data.eval, float) else 0.0
    rows, eval_rows, split_problems = rows_of(len(source.x.array), fraction, seed)
    labels, label_problems = (None, []) if "task" in wrong else understand(source, data.task)
    labels = None if label_problems else labels
    scale = "none" if source.text is not None else None if "scale" in wrong else data.scale
    scaling, number_problems = measure(source, rows, scale or "none")
    problems += split_problems + label_problems + number_problems
    dtype = "int64" if source.text is not None else input_dtype(source.x.array.dtype, scale)
    if second is not None and source.text is not None:
        other_text, text = second, source.text
        second = attempt(problems, lambda: in_vocabulary(other_text, text))
    if second is not None:
        second = _arrange(second, source, labels)
        problems += _check_alike(second, source, dtype)
        problems += _check_labels_alike(second, source, labels) if labels is not None else []
        problems += _unusable_numbers(second)

    if labels is None or dtype is None:
        return Loaded(problems=tuple(problems), samples=len(rows))
    spec = _spec(source, labels, dtype)
    whole = None
    if not problems and not wrong:
        whole = attempt(problems, lambda: _whole(source, rows, second, eval_rows, spec, labels, scaling))
    return Loaded(problems=tuple(problems), data=whole, spec=spec, samples=len(rows))


def _whole(
    source: Source,
    rows: Rows,
    second: Source | None,
    eval_rows: Rows | None,
    spec: DataSpec,
    labels: Labels,
    scaling: Scaling | None,
) -> TrainEval:
    train = _dataset(source, rows, spec, labels, scaling)
    evaluation = None
    if second is not None:
        evaluation = _dataset(second, all_rows(len(second.x.array)), spec, labels, scaling)
    elif eval_rows is not None:
        evaluation = replace(train, rows=eval_rows)
    return TrainEval(train=train, eval=evaluation, spec=spec, class_names=labels.names, scaling=scaling)


def _other_set(
    data: DataSection, wrong: Collection[str], instead: str | ArrayPair | None
) -> tuple[str, str | ArrayPair] | None:
    """What is evaluated on where that is a set by itself, after what problems call it; None where it is none."""
    if instead is not None:
        return "--data", instead
    return None if "eval" in wrong or isinstance(data.eval, float) else ("data.eval", data.eval)


def _read_second(
    key: str, data: str | ArrayPair, train: str | ArrayPair | None, label: str | None, context: int | None
) -> Source | None:
    """The second set. A text goes with a text, a user's function with another; train: None where it is not known."""
    if train is None and (is_function(data) or is_text(data)):
        return None
    if train is not None and (is_function(data) or is_text(data) != is_text(train)):
        expected = "a held-out fraction, or data of the kind of data.train"
        raise InputError([Problem(f"{key} ({data})", expected, _kind(data), f"data.train is {_kind(train)}")])
    return _read(key, data, label, context)


def _kind(data: str | ArrayPair) -> str:
    return "a user's function" if is_function(data) else "a text" if is_text(data) else "a table or arrays"


def _read(field: str, data: str | ArrayPair, label: str | None, context: int | None) -> Source | None:
    source = read_source(field, data, label, context)
    if source is None:
        return None
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


def _unusable_numbers(second: Source | None) -> list[Problem]:
    """Those of a second set, wherever its columns stand and whatever its labels mean."""
    return [] if second is None else measure(second, all_rows(len(second.x.array)), "none")[1]


def _spec(source: Source, labels: Labels, dtype: Literal["float32", "int64"]) -> DataSpec:
    return DataSpec(
        input_shape=source.x.array.shape[1:],
        input_dtype=dtype,
        task=labels.task,
        classes=len(labels.names),
        target_shape=source.y.array.shape[1:],
    )


def _arrange(second: Source, source: Source, labels: Labels | None) -> Source:
    """The second set with columns in the training file's order, and with text labels where it is known to have text."""
    columns, x, y = second.columns, second.x, second.y
    if columns and source.columns and columns != source.columns and set(columns) == set(source.columns):
        order = [columns.index(name) for name in source.columns]
        columns, x = source.columns, StoredArray(x.array[:, order])
    if (
        labels is not None
        and labels.classes is not None
        and labels.classes.dtype.kind == "U"
        and y.array.dtype.kind == "i"
    ):
        # A .csv file in which only number-like labels happen to occur.
        y = StoredArray(y.array.astype(np.str_))
    return replace(second, columns=columns, x=x, y=y)


def _check_alike(second: Source, source: Source, dtype: Literal["float32", "int64"] | None) -> list[Problem]:
    x, shape, problems = second.x.array, source.x.array.shape[1:], []
    if second.columns != source.columns and second.columns and source.columns:
        missing = sorted(set(source.columns) - set(second.columns))
        unknown = sorted(set(second.columns) - set(source.columns))
        found = "; ".join(f"{what} {', '.join(names)}" for what, names in (("no", missing), ("also", unknown)) if names)
        problems.append(Problem(second.field, "the columns of data.train", found))
    elif x.shape[1:] != shape:
        problems.append(Problem(second.field, f"samples of the shape {shape} of data.train", f"{x.shape[1:]}"))
    if dtype is not None and not np.can_cast(x.dtype, dtype, "same_kind"):
        problems.append(Problem(second.field, "whole numbers (tokens), as in data.train", f"{x.dtype}"))
    return problems


def _check_labels_alike(second: Source, source: Source, labels: Labels) -> list[Problem]:
    shape, found = source.y.array.shape[1:], second.y.array.shape[1:]
    if found != shape:
        return [Problem(second.field_y, f"labels of the shape {shape} of data.train", f"{found}")]
    return check_eval_labels(second, labels)


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
