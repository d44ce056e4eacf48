"""Read .parquet with pyarrow, which is imported only where a job names such a file."""

from __future__ import annotations

import importlib
import importlib.util
from itertools import islice
from typing import Any

import numpy as np

from thalweg_proto.errors import InputError, Problem
from thalweg_worker.datasets.source import PROBLEMS_MAX, Source, check_columns, text_labels
from thalweg_worker.datasets.stored import Array, StoredArray


def read_parquet(field: str, path: str, label: str) -> Source:
    """The columns of a .parquet file. Raises InputError where it is damaged or of no use, or pyarrow missing."""
    if importlib.util.find_spec("pyarrow") is None:
        hint = "pip install 'thalweg[parquet]'"
        raise InputError([Problem(field, "pyarrow, which reads .parquet", "it is not installed", hint)])
    # By name: pyarrow has no type stubs, and what it returns is Any.
    pyarrow, parquet = importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
    try:
        with parquet.ParquetFile(path) as file:
            return _read_columns(field, file, label)
    except (pyarrow.ArrowException, OSError) as error:
        found = f"a truncated or damaged one ({str(error).splitlines()[0]})"
        raise InputError([Problem(field, "a whole .parquet file", found)]) from None


def _read_columns(field: str, file: Any, label: str) -> Source:
    schema = file.schema_arrow
    check_columns(field, schema.names, label)
    names = [name for name in schema.names if name != label]
    rows = file.metadata.num_rows
    if rows < 1:
        raise InputError([Problem(field, "at least one sample", "no rows")])
    problems = [
        Problem(f'{field}, column "{name}"', "numbers", f"type {schema.field(name).type}")
        for name in names
        if _dtype(schema.field(name).type) is None
    ]
    if problems:
        raise InputError(islice(problems, PROBLEMS_MAX))

    x = np.empty((rows, len(names)), np.result_type(*(_dtype(schema.field(name).type) or "f8" for name in names)))
    labels = []
    begin = 0
    for batch in file.iter_batches():  # in bounded memory besides x
        for index, name in enumerate(schema.names):
            column = batch.column(index)
            if column.null_count:
                row = begin + column.is_null().to_pylist().index(True)
                problems.append(Problem(f'{field}, row {row}, column "{name}"', "a value", "null"))
            elif name == label:
                labels.append(_labels(field, column))
            else:
                x[begin : begin + len(batch), names.index(name)] = column.to_numpy(zero_copy_only=False)
        begin += len(batch)
    if problems:
        raise InputError(islice(problems, PROBLEMS_MAX))
    y = StoredArray(np.concatenate(labels))
    return Source(field=field, field_y=field, x=StoredArray(x), y=y, columns=tuple(names))


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
