"""What a user's function returned as a data set, one checked sample at a time.

    def dataset(**options) -> anything with len(...) and [index], which gives a pair (x, y)

A map-style `torch.utils.data.Dataset` is such a thing; PyTorch is not imported for it here.

Rules:

- x is an array of numbers (a tensor, an image), y one number or an array of them: whatever `numpy.asarray` takes.
- Shapes and dtypes are those of the first sample; of y only whether it is whole numbers. A sample that is different, or
  has a number that is not finite, is a mistake that is named with its index, as is an exception, with the user's part
  of the traceback.
- The same index gives the same sample whenever and wherever it is asked for. Nothing checks that; where a data set
  draws what it changes, the weights depend on who computed what.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from thalweg_proto.errors import InputError, Problem
from thalweg_proto.job.kinds import function_in
from thalweg_worker.datasets.source import float32_holds
from thalweg_worker.datasets.stored import Array
from thalweg_worker.models.tracebacks import indented, summary, user_traceback
from thalweg_worker.models.user_call import call
from thalweg_worker.models.user_file import UserFile


class UserSet:
    """The samples of a user's object.

    size:    how many there are
    x, y:    those of the first
    classes: the names of the classes where the object says them (`classes`, as in torchvision); else None
    """

    def __init__(self, name: str, returned: Any) -> None:
        """`name`: what problems are named after. InputError where it is no data set, or gives no first sample."""
        self.name = name
        self._returned = returned
        if not (hasattr(returned, "__len__") and hasattr(returned, "__getitem__")):
            expected = "a data set with len(...) and [index]"
            raise InputError([Problem(name, expected, f"a {type(returned).__name__}", _instead(returned))])
        try:
            self.size = len(returned)
        except (Exception, SystemExit) as error:
            raise InputError([self._raised("its length", error)]) from None
        if self.size < 1:
            raise InputError([Problem(name, "at least one sample", "none")])
        self.x, self.y = self._pair(0)
        first = f"{name}, sample 0"
        if problems := [*_no_numbers(first, "x", self.x), *_no_numbers(first, "y", self.y)]:
            raise InputError(problems)
        if self.x.ndim == 0:
            hint = "an array of one number where it is no more: x.reshape(1)"
            raise InputError([Problem(first, "x: an array", "a single number", hint)])
        classes = getattr(returned, "classes", None)
        self.classes = tuple(map(str, classes)) if isinstance(classes, list | tuple) and classes else None

    def targets(self) -> Array | None:
        """All labels, where the object has them in `targets`, as torchvision's have: (size, ...) whole numbers."""
        try:
            targets = np.asarray(getattr(self._returned, "targets", None))
        except Exception:  # whatever it is, no labels
            return None
        fits = targets.shape == (self.size, *self.y.shape) and targets.dtype.kind in "iu"
        return targets if fits else None

    def sample(self, index: int) -> tuple[Array, Array]:
        """x and y of one sample, like those of the first. Raises InputError."""
        x, y = self._pair(index)
        name = f"{self.name}, sample {index}"
        problems = _other(name, "x", x, self.x, alike=x.dtype == self.x.dtype)
        problems += _other(name, "y", y, self.y, alike=_alike(y, self.y))
        if problems := problems or [*_not_finite(name, "x", x), *_not_finite(name, "y", y)]:
            raise InputError(problems)
        return x, y

    def _pair(self, index: int) -> tuple[Array, Array]:
        try:
            pair = self._returned[index]
            if isinstance(pair, tuple | list) and len(pair) == 2:
                return np.asarray(pair[0]), np.asarray(pair[1])
        except (Exception, SystemExit) as error:
            raise InputError([self._raised(f"sample {index}", error)]) from None
        found = f"{len(pair)} parts" if isinstance(pair, tuple | list) else f"a {type(pair).__name__}"
        raise InputError([Problem(f"{self.name}, sample {index}", "a pair (x, y)", found)])

    def _raised(self, what: str, error: BaseException) -> Problem:
        return Problem(f"{self.name}, {what}", "no exception", summary(error), indented(user_traceback(error)))


@dataclass(frozen=True, kw_only=True)
class UserFunction:
    """A user's function that gives a data set, as a value that travels.

    options: for the function, as in the job file
    """

    file: UserFile
    function: str
    options: Mapping[str, Any]
    _opened: list[UserSet] = field(default_factory=list, repr=False, compare=False)

    @classmethod
    def read(cls, key: str, data: str, options: Mapping[str, Any]) -> UserFunction:
        """key: "data.train"; data: "/absolute/FILE.py:FUNCTION". Raises InputError where the file cannot be read."""
        named = function_in(data)
        assert named is not None
        return cls(file=UserFile.read(Path(named[0]), key), function=named[1], options=options)

    @property
    def name(self) -> str:
        """What problems are named after."""
        return f"{self.file.key} ({self.file.name}:{self.function})"

    def open(self) -> UserSet:
        """What the function returns; it is called once in a process. Raises InputError."""
        if not self._opened:
            returned = call(self.file, self.function, self.options, table="data", returns="a data set")
            self._opened.append(UserSet(self.name, returned))
        return self._opened[0]

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_opened": []}


def _instead(returned: Any) -> str:
    """A hint for what has no samples by index."""
    if type(returned).__module__.startswith("ray.data."):
        return (
            "a Ray Data set has no samples by index: write it once, with execution_options.preserve_order, by "
            '.write_parquet("FOLDER"), and say train = "FOLDER"'
        )
    return "an iterable-style data set has no order that a seed could fix" * hasattr(returned, "__iter__")


def _no_numbers(name: str, what: str, array: Array) -> list[Problem]:
    if array.dtype.kind in "biuf":
        return []
    found = f"dtype {array.dtype}" if array.dtype.kind != "O" else "objects that are no numbers"
    return [Problem(name, f"{what}: numbers", found)]


def _alike(array: Array, first: Array) -> bool:
    """Whether both are whole numbers, or both are others."""
    return array.dtype.kind in "biu" if first.dtype.kind in "biu" else array.dtype.kind == "f"


def _other(name: str, what: str, array: Array, first: Array, *, alike: bool) -> list[Problem]:
    """What is different in it from the first sample; alike: whether its dtype will do."""
    if array.shape != first.shape:
        return [Problem(name, f"{what} of the shape {first.shape} of the first sample", f"{array.shape}")]
    if not alike:
        return [Problem(name, f"{what} of the dtype {first.dtype} of the first sample", f"{array.dtype}")]
    return []


def _not_finite(name: str, what: str, array: Array) -> list[Problem]:
    if array.dtype.kind != "f":
        return []
    usable = float32_holds(array)
    if usable.all():
        return []
    place = tuple(int(index) for index in np.argwhere(~usable)[0])
    return [Problem(name, f"{what}: finite numbers within float32's range", f"{array[place]} at {place}")]
