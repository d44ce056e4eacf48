"""Read .csv: a header with the names, then rows of numbers and a label.

NumPy's C parser reads the file; only where it meets something that it cannot use does a slow pass in Python find the
cells to blame, so that a clean file of 100,000 rows and 64 columns takes 1.5 s and not 4.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice

import numpy as np

from thalweg_proto.errors import InputError, Problem
from thalweg_proto.job.parsing import describe
from thalweg_worker.datasets.source import PROBLEMS_MAX, Source, check_columns, text_labels
from thalweg_worker.datasets.stored import Array, StoredArray


def read_csv(field: str, path: str, label: str) -> Source:
    """The columns of a comma-separated file. Raises InputError, with lines and columns, where it is of no use."""
    columns, header_lines = _read_header(field, path, label)
    index = columns.index(label)
    features = [("before", np.float64, (index,)), ("after", np.float64, (len(columns) - index - 1,))]
    before, after = ([part] if part[-1] != (0,) else [] for part in features)
    try:
        table = np.loadtxt(
            path,
            [*before, ("label", object), *after],
            comments=None,
            delimiter=",",
            converters={index: str},
            skiprows=header_lines,
            encoding="utf-8-sig",
            quotechar='"',
            ndmin=1,
        )
    except ValueError as error:
        found = list(islice(_wrong_cells(field, path, columns, index), PROBLEMS_MAX))
        raise InputError(found or [Problem(field, "a table of numbers", str(error))]) from None
    x = np.concatenate([table[name] for name, *_ in (*before, *after)], axis=1)
    y = typed_labels(field, table["label"].tolist())
    if not np.isfinite(x).all() or (y.dtype.kind == "f" and not np.isfinite(y).all()) or "" in table["label"]:
        raise InputError(islice(_wrong_cells(field, path, columns, index, y.dtype.kind), PROBLEMS_MAX))
    names = tuple(column for column in columns if column != label)
    return Source(field=field, field_y=field, x=StoredArray(x), y=StoredArray(y), columns=names)


def typed_labels(field: str, labels: list[str]) -> Array:
    """Labels as int64 where all are whole numbers, as float64 where all are numbers, else as text."""
    text = text_labels(field, labels)
    with suppress(ValueError, OverflowError):
        return text.astype(np.int64)
    with suppress(ValueError):
        return text.astype(np.float64)
    return text


def _read_header(field: str, path: str, label: str) -> tuple[list[str], int]:
    """The column names, and how many lines the header takes."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as stream:
            reader = csv.reader(stream)
            columns = next(reader, [])
            lines = reader.line_num
            if not columns:
                raise InputError([Problem(field, "a header with the names of the columns", "an empty first line")])
            check_columns(field, columns, label)
            if not any(reader):
                raise InputError([Problem(field, "at least one sample", "nothing below the header")])
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError([Problem(field, "comma-separated text in UTF-8", str(error))]) from None
    return columns, lines


def _wrong_cells(field: str, path: str, columns: list[str], label: int, label_kind: str = "U") -> Iterator[Problem]:
    """What is wrong with the rows, in the order of the file."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as stream:
            reader = csv.reader(stream)
            next(reader)
            for row in filter(None, reader):
                line = f"{field}, line {reader.line_num}"
                if len(row) != len(columns):
                    yield Problem(line, f"{len(columns)} cells", f"{len(row)} cells")
                    continue
                for index, cell in enumerate(row):
                    place = f'{line}, column "{columns[index]}"'
                    if index == label and label_kind != "f":
                        if not cell:
                            yield Problem(place, "a label", "an empty cell")
                    elif expected := _wrong_number(cell):
                        yield Problem(place, expected, describe(cell) if cell else "an empty cell")
    except (UnicodeDecodeError, csv.Error) as error:
        yield Problem(field, "comma-separated text in UTF-8", str(error))


def _wrong_number(cell: str) -> str:
    """What was expected instead of the cell; "" where it is a finite number."""
    try:
        finite = math.isfinite(float(cell)) and "_" not in cell  # Python reads 1_000, the C parser does not
    except ValueError:
        return "a number"
    return "" if finite else "a finite number"
