"""Which reader takes which form of data."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from thalweg_proto.errors import InputError, Problem, attempt
from thalweg_proto.job import BUILT_IN_DATA, ArrayPair
from thalweg_proto.job.kinds import nearest
from thalweg_worker.datasets.csv_file import read_csv
from thalweg_worker.datasets.digits import read_digits
from thalweg_worker.datasets.idx import read_idx
from thalweg_worker.datasets.npy import map_npy, read_npz
from thalweg_worker.datasets.parquet import read_parquet
from thalweg_worker.datasets.source import Source, check_dtype, check_file
from thalweg_worker.datasets.stored import StoredArray

_IDX_NAME = re.compile(r"idx\d*(-ubyte)?|-ubyte$|\.idx$")


def read_source(field: str, data: str | ArrayPair, label: str | None) -> Source | None:
    """The samples and labels of one data set; None where that needs the label's column and it is not known.

    field: what problems are named after: "data.train"
    data:  a built-in name, an absolute path, or two of them
    label: the label's column, where the file has columns; None where the job has it wrong

    Raises InputError with all problems of the files.
    """
    if isinstance(data, ArrayPair):
        return _read_pair(field, data)
    if data == "digits":
        return read_digits(field)
    field = f"{field} ({data})"
    tables: dict[str, Callable[[str, str, str], Source]] = {".csv": read_csv, ".parquet": read_parquet}
    suffix = Path(data).suffix.lower()
    if suffix != ".npz" and suffix not in tables:
        hint = nearest(Path(data).name, BUILT_IN_DATA)
        if suffix == ".npy" or _is_idx(data):
            hint = 'samples and labels are two such files: { x = "...", y = "..." }'
        expected = 'a name that ends in .npz, .csv or .parquet, a pair of files, or "digits"'
        raise InputError([Problem(field, expected, f'the ending "{suffix}"', hint)])
    check_file(field, data)
    try:
        if suffix == ".npz":
            return read_npz(field, data)
        return None if label is None else tables[suffix](field, data, label)
    except OSError as error:
        raise InputError([Problem(field, "a file that can be read", error.strerror or str(error))]) from None


def _read_pair(field: str, pair: ArrayPair) -> Source:
    field_x, field_y = f"{field}.x ({pair.x})", f"{field}.y ({pair.y})"
    problems: list[Problem] = []
    x = attempt(problems, lambda: _read_array(field_x, pair.x, text=False))
    y = attempt(problems, lambda: _read_array(field_y, pair.y, text=True))
    if x is None or y is None:
        raise InputError(problems)
    return Source(field=field_x, field_y=field_y, x=x, y=y)


def _read_array(field: str, path: str, *, text: bool) -> StoredArray:
    is_npy = path.lower().endswith(".npy")
    if not (is_npy or _is_idx(path)):
        expected = "a .npy file, or an idx file with idx in its name (.gz or not)"
        raise InputError([Problem(field, expected, f'the name "{Path(path).name}"')])
    check_file(field, path)
    try:
        stored = map_npy(field, path, text=text) if is_npy else read_idx(field, path)
    except OSError as error:
        raise InputError([Problem(field, "a file that can be read", error.strerror or str(error))]) from None
    check_dtype(field, stored.array.dtype, text=text)
    return stored


def _is_idx(path: str) -> bool:
    return bool(_IDX_NAME.search(Path(path).name.lower().removesuffix(".gz")))
