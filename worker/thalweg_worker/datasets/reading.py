"""Which reader takes which form of data."""

from __future__ import annotations

import os
import re
from pathlib import Path

from thalweg_proto.errors import InputError, Problem, attempt
from thalweg_proto.job import BUILT_IN_DATA, TEXT_ENDINGS, ArrayPair
from thalweg_proto.job.kinds import nearest
from thalweg_worker.datasets.csv_file import read_csv
from thalweg_worker.datasets.digits import read_digits
from thalweg_worker.datasets.idx import read_idx
from thalweg_worker.datasets.npy import map_npy, read_npz
from thalweg_worker.datasets.parquet import read_parquet
from thalweg_worker.datasets.parquet_folder import read_parquet_folder
from thalweg_worker.datasets.source import Source, check_dtype, check_file
from thalweg_worker.datasets.stored import StoredArray
from thalweg_worker.datasets.text import read_text

_FILES_ONLY = (".npz", ".csv", *TEXT_ENDINGS)
_FORMS = (
    'a name that ends in .npz, .csv or .parquet, a pair of files, or "digits"; '
    'or a .txt or .md, a folder of .parquet files, or "FILE.py:FUNCTION"'
)
_IDX_NAME = re.compile(r"idx\d*(-ubyte)?|-ubyte$|\.idx$")


def read_source(field: str, data: str | ArrayPair, label: str | None, context: int | None = None) -> Source | None:
    """The samples and labels of one data set; None where that needs a key that is not known.

    field:   what problems are named after: "data.train"
    data:    a built-in name, an absolute path, or two of them; no user's function
    label:   the label's column, where the files have columns; None where the job has it wrong
    context: characters of a sample of a text; None where the job has it wrong

    Raises InputError with all problems of the files.
    """
    if isinstance(data, ArrayPair):
        return _read_pair(field, data)
    if data == "digits":
        return read_digits(field)
    field = f"{field} ({data})"
    suffix = Path(data).suffix.lower()
    try:
        if os.path.isdir(data) and suffix not in _FILES_ONLY:
            return None if label is None else read_parquet_folder(field, data, label)
        if suffix not in (*_FILES_ONLY, ".parquet"):
            raise InputError([Problem(field, _FORMS, f'the ending "{suffix}"', _meant(data, suffix))])
        check_file(field, data)
        if suffix == ".npz":
            return read_npz(field, data)
        if suffix in TEXT_ENDINGS:
            return None if context is None else read_text(field, data, context)
        read = read_csv if suffix == ".csv" else read_parquet
        return None if label is None else read(field, data, label)
    except OSError as error:
        raise InputError([Problem(field, "a file that can be read", error.strerror or str(error))]) from None


def _meant(data: str, suffix: str) -> str:
    """A hint for a name that is of no known form."""
    if suffix == ".npy" or _is_idx(data):
        return 'samples and labels are two such files: { x = "...", y = "..." }'
    if suffix == ".py":
        return 'name its function, too: "FILE.py:FUNCTION"'
    return nearest(Path(data).name, BUILT_IN_DATA)


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
