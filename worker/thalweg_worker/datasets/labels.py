"""Labels: class indices for a classifier, float32 targets for a regression.

The distinct labels of the training file, sorted, are the classes 0 .. k-1. Labels are scanned chunk by chunk, so that
they too may be larger than memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from thalweg_proto.errors import Problem
from thalweg_worker.datasets.source import Source, float32_holds
from thalweg_worker.datasets.stored import Array, MappedArray, StoredArray

CLASSES_MAX = 65536
CHUNK_ROWS = 1 << 20

Task = Literal["classification", "regression"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Labels:
    """What the labels of a job mean.

    classes:    (k,) the distinct labels, sorted, of the file's own dtype; None for a regression
    characters: they are characters, by number, and the labels are places among them
    """

    task: Task
    classes: Array | None = None
    characters: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """The classes as text, by class index; () for a regression."""
        name = chr if self.characters else str
        return () if self.classes is None else tuple(name(label) for label in self.classes.tolist())

    @property
    def are_indices(self) -> bool:
        """Whether the labels are the class indices already."""
        if self.classes is None or self.characters:
            return self.characters
        return self.classes.dtype.kind in "biu" and bool(self.classes[-1] == len(self.classes) - 1)


def understand(source: Source, task: Literal["auto", "classification", "regression"]) -> tuple[Labels, list[Problem]]:
    """What the labels of the training file mean, and what is wrong with them."""
    labels, field = source.y.array, source.field_y
    if source.text is not None:
        return Labels(task="classification", classes=source.text.vocabulary, characters=True), []
    if task == "auto":
        task = "regression" if labels.dtype.kind == "f" else "classification"
    if task == "regression":
        return Labels(task=task), list(_target_problems(field, labels))
    if labels.ndim != 1:
        hint = "targets of several numbers are a regression" if labels.dtype.kind == "f" else ""
        return Labels(task=task), [Problem(field, "one label for each sample", f"shape {labels.shape}", hint)]

    classes = labels[:0]
    for begin, chunk in _chunks(labels):
        if problem := _class_problem(field, begin, chunk):
            return Labels(task=task), [problem]
        classes = np.union1d(classes, chunk)
        if len(classes) > CLASSES_MAX:
            hint = 'numbers to predict rather than classes? task = "regression"'
            return Labels(task=task), [Problem(field, f"at most {CLASSES_MAX} classes", "more", hint)]
    if len(classes) < 2:
        return Labels(task=task), [Problem(field, "at least 2 classes", f"only {classes[0]}")]
    return Labels(task=task, classes=classes), []


def check_eval_labels(source: Source, labels: Labels) -> list[Problem]:
    """What is wrong with the labels of a second set, after the training file has said what labels mean."""
    found, field = source.y.array, source.field_y
    if labels.characters:
        return []  # a second text is looked through before, see `in_vocabulary`
    if labels.task == "regression":
        return list(_target_problems(field, found))
    classes = labels.classes
    if classes is None or found.ndim != 1:
        return [Problem(field, "one label for each sample", f"shape {found.shape}")]
    if (found.dtype.kind == "U") != (classes.dtype.kind == "U"):
        kinds = f"labels like those of data.train ({classes.dtype})"
        return [Problem(field, kinds, f"{found.dtype}")]
    for begin, chunk in _chunks(found):
        unknown = np.flatnonzero(~np.isin(chunk, classes))
        if unknown.size:
            row = int(unknown[0])
            expected = f"labels of data.train ({', '.join(labels.names[:10])}{', ...' * (len(classes) > 10)})"
            text = f"{chunk[row]} in row {begin + row}"
            return [Problem(field, expected, text, "labels out of range: training never sees such a one")]
    return []


def flat_labels(stored: StoredArray) -> StoredArray:
    """Labels of shape (N, 1) that are no float targets, as (N,)."""
    array, file = stored.array, stored.file
    if array.ndim == 1 or array.dtype.kind == "f" or array.size != len(array):
        return stored
    place = replace(file, shape=(len(array),)) if isinstance(file, MappedArray) else None
    return StoredArray(array.reshape(-1), place)


def _class_problem(field: str, begin: int, chunk: Array) -> Problem | None:
    if chunk.dtype.kind == "f":
        whole = chunk == np.floor(chunk)  # false for NaN
        if not whole.all():
            row = int(np.argmin(whole))
            return Problem(field, "whole numbers or text as classes", f"{chunk[row]} in row {begin + row}")
    if chunk.dtype.kind in "if" and chunk.min() < 0:
        row = int(np.argmax(chunk < 0))
        hint = "labels out of range: classes count from 0"
        return Problem(field, "labels >= 0", f"{chunk[row]} in row {begin + row}", hint)
    return None


def _target_problems(field: str, targets: Array) -> Iterator[Problem]:
    if targets.dtype.kind == "U":
        yield Problem(field, "numbers as targets of a regression", "text")
        return
    for begin, chunk in _chunks(targets):
        usable = float32_holds(chunk)
        if not usable.all():
            place = tuple(int(index) for index in np.argwhere(~usable)[0])
            where = f"row {begin + place[0]}" + "".join(f", column {index}" for index in place[1:])
            yield Problem(field, "finite numbers", f"{chunk[place]} in {where}")
            return


def _chunks(labels: Array) -> Iterator[tuple[int, Array]]:
    for begin in range(0, len(labels), CHUNK_ROWS):
        yield begin, labels[begin : begin + CHUNK_ROWS]
