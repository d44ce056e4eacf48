"""From user's functions that give data sets to training and evaluation sets, in the driver, before anything starts.

Rules:

- Labels that are whole numbers are class indices. How many classes there are is said by the object's `classes`, else by
  its `targets`, else by its samples.
- With scale = "none" and classes that are known, only the first sample is looked at: what is wrong with another is
  found when a worker fetches it, and ends the run. Else all samples are gone through once and checked here, and the
  statistics are those of the training part.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Literal, cast

import numpy as np

from thalweg_proto.errors import InputError, Problem, attempt
from thalweg_proto.job import ArrayPair, DataSection, is_function
from thalweg_worker.batch import DataSpec
from thalweg_worker.datasets.fetched import FetchedDataset, wrong_label
from thalweg_worker.datasets.labels import Task
from thalweg_worker.datasets.loaded import Loaded, TrainEval
from thalweg_worker.datasets.rows import Rows, all_rows, rows_of
from thalweg_worker.datasets.scaling import Scaling, input_dtype, measure
from thalweg_worker.datasets.source import Source
from thalweg_worker.datasets.stored import Array, StoredArray
from thalweg_worker.datasets.user_set import UserFunction, UserSet

Scale = Literal["none", "standard", "0-1"]


def load_functions(
    data: DataSection, seed: int, wrong: Collection[str], other: tuple[str, str | ArrayPair] | None
) -> Loaded:
    """Where `data.train` is "FILE.py:FUNCTION". See `load_dataset`; other: what is evaluated on where that is a set by
    itself, after what problems call it."""
    problems: list[Problem] = []
    source = attempt(problems, lambda: _opened("data.train", data.train, data.options))
    second = None
    if other is not None:
        second = attempt(problems, lambda: _opened(*other, data.options))
    if source is None:
        return Loaded(problems=tuple(dict.fromkeys(problems)))  # a key that neither function takes is one mistake

    samples = source.open()
    fraction = data.eval if "eval" not in wrong and isinstance(data.eval, float) else 0.0
    rows, eval_rows, found = rows_of(samples.size, fraction, seed)
    problems += found
    scale: Scale | None = None if "scale" in wrong else data.scale
    dtype = input_dtype(samples.x.dtype, scale)
    task = None if "task" in wrong else attempt(problems, lambda: _task(samples, data.task))
    if task is None or dtype is None:
        return Loaded(problems=tuple(problems), samples=len(rows))
    names, scaling, found = _look(samples, task, rows, scale or "none")
    problems += found
    if names is None:
        return Loaded(problems=tuple(problems), samples=len(rows))

    spec = DataSpec(
        input_shape=samples.x.shape,
        input_dtype=dtype,
        task=task,
        classes=len(names),
        target_shape=samples.y.shape,
    )
    if second is not None:
        problems += _check_second(second.open(), spec, scale or "none")
    whole = None
    if not problems and not wrong:
        train = FetchedDataset(spec=spec, source=source, rows=rows, scaling=scaling)
        held_out = None
        if second is not None:
            held_out = FetchedDataset(spec=spec, source=second, rows=all_rows(second.open().size), scaling=scaling)
        elif eval_rows is not None:
            held_out = FetchedDataset(spec=spec, source=source, rows=eval_rows, scaling=scaling)
        whole = TrainEval(train=train, eval=held_out, spec=spec, class_names=names, scaling=scaling)
    return Loaded(problems=tuple(problems), data=whole, spec=spec, samples=len(rows))


def _opened(key: str, named: str | ArrayPair, options: Mapping[str, Any]) -> UserFunction:
    if not is_function(named):
        raise InputError([Problem(key, 'a held-out fraction, or "FILE.py:FUNCTION" as data.train is', f"{named}")])
    source = UserFunction.read(key, named, options)
    source.open()
    return source


def _task(samples: UserSet, task: Literal["auto", "classification", "regression"]) -> Task:
    """Whole numbers are classes, others are targets. Raises InputError where they cannot be."""
    whole = samples.y.dtype.kind in "biu"
    if task == "classification" and not whole:
        found = f"y of dtype {samples.y.dtype}"
        raise InputError([Problem(f"{samples.name}, sample 0", "whole numbers as classes", found)])
    return task if task != "auto" else "classification" if whole else "regression"


def _look(
    samples: UserSet, task: Task, rows: Rows, scale: Scale
) -> tuple[tuple[str, ...] | None, Scaling | None, list[Problem]]:
    """The names of the classes (() for a regression, None where that cannot be said), the scaling by the rows given,
    and what is wrong with the samples that have to be looked at for it."""
    problems: list[Problem] = []
    names: tuple[str, ...] | None = ()
    if task == "classification":
        names = samples.classes or attempt(problems, lambda: _named_by_targets(samples))
    if problems:
        return None, None, problems
    scaling = None
    if scale == "none" and names is not None:
        problems = _first_problems(samples, task, len(names))
    else:
        scan = _Scan(samples, task, len(names or ()))
        scaling = attempt(problems, lambda: scan.measure(rows, scale))
        names = names if names is not None or problems else scan.names
    if names is not None and task == "classification" and len(names) < 2:
        return None, None, [*problems, Problem(samples.name, "at least 2 classes", f"only {names[0]}")]
    return names, scaling, problems


def _named_by_targets(samples: UserSet) -> tuple[str, ...] | None:
    targets = samples.targets()
    if targets is None:
        return None
    for bad in (int(targets.argmin()), int(targets.argmax())):
        index = np.unravel_index(bad, targets.shape)
        if problem := wrong_label(f"{samples.name}, targets[{index[0]}]", targets[index], None):
            raise InputError([problem])
    return tuple(map(str, range(int(targets.max()) + 1)))


def _first_problems(samples: UserSet, task: Task, classes: int) -> list[Problem]:
    problems: list[Problem] = []
    attempt(problems, lambda: samples.sample(0))
    if task == "classification" and (problem := wrong_label(f"{samples.name}, sample 0", samples.y, classes)):
        problems.append(problem)
    return problems


def _check_second(second: UserSet, spec: DataSpec, scale: Scale) -> list[Problem]:
    """What is wrong with a second set, after the first has said what samples and labels mean."""
    name, problems = f"{second.name}, sample 0", []
    if second.x.shape != spec.input_shape:
        problems.append(Problem(name, f"x of the shape {spec.input_shape} of data.train", f"{second.x.shape}"))
    if second.y.shape != spec.target_shape:
        problems.append(Problem(name, f"y of the shape {spec.target_shape} of data.train", f"{second.y.shape}"))
    if not np.can_cast(second.x.dtype, spec.input_dtype, "same_kind"):
        problems.append(Problem(name, "x of whole numbers (tokens), as in data.train", f"{second.x.dtype}"))
    if spec.task == "classification" and second.y.dtype.kind not in "biu":
        problems.append(Problem(name, "y of whole numbers (classes), as in data.train", f"{second.y.dtype}"))
    if problems:
        return problems
    if scale == "none":
        return _first_problems(second, spec.task, spec.classes)
    scan = _Scan(second, spec.task, spec.classes)
    attempt(problems, lambda: scan.measure(all_rows(second.size), "none"))
    return problems


class _Scan:
    """All samples as `measure` reads an array: slice by slice, each sample fetched and checked."""

    def __init__(self, samples: UserSet, task: Task, classes: int) -> None:
        """`classes`: how many there are; 0 where it is not known."""
        self.shape: tuple[int, ...] = (samples.size, *samples.x.shape)
        self.dtype = samples.x.dtype
        self._samples = samples
        self._classes = classes or None
        self._classify = task == "classification"
        self._largest = 0

    def measure(self, rows: Rows, scale: Scale) -> Scaling | None:
        """Raises InputError where a sample is of no use."""
        stored = StoredArray(cast(Any, self))
        source = Source(field=self._samples.name, field_y=self._samples.name, x=stored, y=stored)
        scaling, problems = measure(source, rows, scale)
        if problems:
            raise InputError(problems)
        return scaling

    @property
    def names(self) -> tuple[str, ...]:
        """Of the classes, after all samples were looked at."""
        return tuple(map(str, range(self._largest + 1)))

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, part: slice) -> Array:
        rows = range(*part.indices(len(self)))
        x_out = np.empty((len(rows), *self.shape[1:]), self.dtype)
        for place, row in enumerate(rows):
            x_out[place], y = self._samples.sample(row)
            if self._classify:
                if problem := wrong_label(f"{self._samples.name}, sample {row}", y, self._classes):
                    raise InputError([problem])
                self._largest = max(self._largest, int(y.max()))
        return x_out
