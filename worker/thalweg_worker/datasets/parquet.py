"""Read .parquet with pyarrow, which is imported only where a job names such a file."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any

import numpy as np

from thalweg_proto.errors import InputError, Problem
from thalweg_worker.datasets.source import PROBLEMS_MAX, Source, check_columns, text_labels
from thalweg_worker.datasets.stored import Array, StoredArray

CHUNK_ELEMENTS = 1 << 18


def read_parquet(field: str, path: str, label: str) -> Source:
    """The columns of a .parquet file. Raises InputError where it is damaged or of no use, or pyarrow missing."""
    with opened(field, path) as file:
        names = features(field, file, label)
        rows = file.metadata.num_rows
        if rows < 1:
            raise InputError([Problem(field, "at least one sample", "no rows")])
        x, labels, begin = np.empty((rows, len(names)), features_dtype(file, names)), [], 0
        for part, part_labels in parts(field, file, label, names):
            x[begin : begin + len(part)] = part
            labels.append(part_labels)
            begin += len(part)
    y = StoredArray(np.concatenate(labels))
    return Source(field=field, field_y=field, x=StoredArray(x), y=y, columns=tuple(names))


@contextmanager
def opened(field: str, path: str) -> Iterator[Any]:
    """A `pyarrow.parquet.ParquetFile`. Raises InputError where it is damaged, found on opening or while it is read."""
    if importlib.util.find_spec("pyarrow") is None:
        hint = "pip install 'thalweg[parquet]'"
        raise InputError([Problem(field, "pyarrow, which reads .parquet", "it is not installed", hint)])
    # By name: pyarrow has no type stubs, and what it returns is Any.
    pyarrow, parquet = importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
    try:
        with parquet.ParquetFile(path) as file:
            yield file
    except (pyarrow.ArrowException, OSError) as error:
        found = f"a truncated or damaged one ({str(error).splitlines()[0]})"
        raise InputError([Problem(field, "a whole .parquet file", found)]) from None


def features(field: str, file: Any, label: str) -> list[str]:
    """The columns but the label's. Raises InputError where there is no such label, or a feature is no number."""
    schema = file.schema_arrow
    check_columns(field, schema.names, label)
    names = [name for name in schema.names if name != label]
    problems = [
        Problem(f'{field}, column "{name}"', "numbers", f"type {schema.field(name).type}")
        for name in names
        if _dtype(schema.field(name).type) is None
    ]
    if problems:
        raise InputError(islice(problems, PROBLEMS_MAX))
    return names


def features_dtype(file: Any, names: list[str]) -> np.dtype[Any]:
    """What holds the numbers of all features."""
    return np.result_type(*(_dtype(file.schema_arrow.field(name).type) or "f8" for name in names))


def parts(field: str, file: Any, label: str, names: list[str]) -> Iterator[tuple[Array, Array]]:
    """Features (n, len(names)) and labels (n,) of the rows in order. In memory is a row group as it is in the file, and
    CHUNK_ELEMENTS of it decoded.

    names: of the features to give; with none, only the labels are read

    Raises InputError at a null.
    """
    begin, dtype = 0, features_dtype(file, names) if names else np.dtype(np.float32)
    for batch in file.iter_batches(batch_size=max(1, CHUNK_ELEMENTS // (len(names) + 1)), columns=[*names, label]):
        problems = []
        for name in (*names, label):
            column = batch.column(name)
            if column.null_count:
                row = begin + column.is_null().to_pylist().index(True)
                problems.append(Problem(f'{field}, row {row}, column "{name}"', "a value", "null"))
        if problems:
            raise InputError(islice(problems, PROBLEMS_MAX))
        x = np.empty((len(batch), len(names)), dtype)
        for index, name in enumerate(names):
            x[:, index] = batch.column(name).to_numpy(zero_copy_only=False)
        yield x, _labels(field, batch.column(label))
        begin += len(batch)


def _dtype(kind: Any) -> str | None:
    """The NumPy dtype that holds a column of the Arrow type `kind`; None where it is no number."""
    name = str(kind)
    if name in ("float", "halffloat", "bool", "int8", "int16", "uint8", "uint16"):
        return "f4"  # float32 holds each of their values
    if name == "double" or name.startswith(("int", "uint", "decimal")):
        return "f8"
    return None


def _labels(field: str, column: Any) -> Array:
    """Text, numbers or booleans; pandas' categories come as an Arrow dictionary."""
    if str(column.type).startswith("dictionary"):
        column = column.dictionary_decode()
    kind = str(column.type)
    if kind in ("string", "large_string", "string_view"):
        return text_labels(field, column.to_pylist())
    if kind == "bool" or (_dtype(kind) is not None and not kind.startswith("decimal")):
        numbers: Array = column.to_numpy(zero_copy_only=False)
        return numbers
    raise InputError([Problem(field, "labels that are numbers or text", f"type {kind}")])
