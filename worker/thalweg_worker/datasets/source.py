"""What the reader of a format returns, and what all of them check alike."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from thalweg_proto.errors import InputError, Problem
from thalweg_proto.job.kinds import nearest
from thalweg_proto.job.loading import near_missing
from thalweg_proto.job.parsing import describe
from thalweg_worker.datasets.stored import Array, StoredArray

if TYPE_CHECKING:
    from thalweg_worker.datasets.text import Text

LABEL_CHARACTERS_MAX = 256  # NumPy keeps each text as long as the longest, so one may not blow up all
COLUMNS_SHOWN_MAX = 20
PROBLEMS_MAX = 5  # of one file; the rest is likely more of the same


@dataclass(frozen=True, kw_only=True, eq=False)
class Source:
    """Samples and labels as they stand in the files, before labels are mapped and features scaled.

    field:   what problems with the samples are named after: "data.train (/job/images.npz)"
    field_y: the same for the labels
    x:       (N, ...) of any number dtype
    y:       (N,) or (N, k) of any number or text dtype
    columns: the names of x's columns where the file has names
    text:    in whose vocabulary x and y are places; None where it is none
    """

    field: str
    field_y: str
    x: StoredArray
    y: StoredArray
    columns: tuple[str, ...] | None = None
    text: Text | None = None


def check_file(field: str, path: str) -> None:
    """Raises InputError where there is no file to read at `path`, with the path tried and what lies near it."""
    if os.path.isfile(path):
        if not os.access(path, os.R_OK):
            raise InputError([Problem(field, "a file that can be read", "no permission to read it")])
        return
    if os.path.exists(path):
        raise InputError([Problem(field, "a file", "a folder" if os.path.isdir(path) else "no plain file")])
    raise InputError([Problem(field, "a file", f"no such file: {path}", near_missing(path))])


def check_columns(field: str, columns: list[str], label: str) -> None:
    """Raises InputError where the label column is missing, the only one, or a name stands twice."""
    shown = ", ".join(columns[:COLUMNS_SHOWN_MAX]) + (", ..." if len(columns) > COLUMNS_SHOWN_MAX else "")
    problems = []
    if label not in columns:
        hint = nearest(label, columns) or 'name the label\'s column: label = "..." under [data]'
        hint = "columns are separated by commas" if len(columns) == 1 else hint
        problems.append(Problem(field, f'a label column "{label}"', f"the columns {shown}", hint))
    elif len(columns) == 1:
        problems.append(Problem(field, "at least one feature column", f"the columns {shown}"))
    if len(set(columns)) < len(columns):
        twice = sorted({name for name in columns if columns.count(name) > 1})
        problems.append(Problem(field, "each column once", f'"{twice[0]}" more than once'))
    if problems:
        raise InputError(problems)


def check_dtype(field: str, dtype: np.dtype[np.generic], *, text: bool) -> None:
    """Raises InputError where arrays of `dtype` cannot be samples, or (text) labels."""
    if dtype.hasobject:
        hint = 'it is pickled Python, which is never loaded; save plain numbers: array.astype("float32")'
        raise InputError([Problem(field, "an array of numbers" + " or text" * text, "an object array", hint)])
    if dtype.kind not in ("biufU" if text else "biuf"):
        raise InputError([Problem(field, "an array of numbers" + " or text" * text, f"dtype {dtype}")])


def float32_holds(numbers: Array) -> NDArray[np.bool_]:
    """For each number whether it is finite, and finite in float32 too."""
    with np.errstate(over="ignore"):
        return np.isfinite(numbers.astype(np.float32))


def text_labels(field: str, labels: list[str]) -> Array:
    """(N,) of NumPy's fixed-width text. Raises InputError where one is so long that it would blow up all."""
    longest = max(labels, key=len)
    if len(longest) > LABEL_CHARACTERS_MAX:
        found = f"{len(longest)} characters: {describe(longest)}"
        raise InputError([Problem(field, f"labels of at most {LABEL_CHARACTERS_MAX} characters", found)])
    return np.array(labels)
