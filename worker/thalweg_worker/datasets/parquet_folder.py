"""Read a folder of .parquet files as one table, which may be larger than memory.

Rules:

- The rows are those of the files in the order of their names. All files have the same columns.
- A step takes rows from all over the table. A row by itself cannot be read from .parquet, only its whole row group (33
  ms for 25,000 rows of 100 float32, and most rows of a batch are in another one); so the table is decoded once, to .npy
  files that are mapped (128 rows of it: 0.07 ms), with a row group in memory at a time.
- They lie in the cache (cache.py) of each host that works on the job, one for a folder and a label, and are made anew
  where a file has another size or time.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from thalweg_proto.errors import InputError, Problem
from thalweg_proto.job.beside import tables_in
from thalweg_worker.datasets.cache import CachedArrays, cache_folder, digest, present_state
from thalweg_worker.datasets.parquet import features, features_dtype, opened, parts
from thalweg_worker.datasets.source import Source
from thalweg_worker.datasets.stored import Array, StoredArray


def read_parquet_folder(field: str, folder: str, label: str) -> Source:
    """The rows of all .parquet files of a folder. Raises InputError where one is damaged, of no use, or different from
    the first; where pyarrow is missing; or where there is no room to decode them to."""
    files = [path.name for path in tables_in(Path(folder), field)]
    names, x_dtypes, y_dtypes, rows = _surveyed(field, folder, files, label)
    if rows < 1:
        raise InputError([Problem(field, "at least one sample", "no rows")])
    table = DecodedTable(
        field=field,
        folder=folder,
        files=tuple((name, Path(folder, name).stat().st_size) for name in files),
        label=label,
        names=tuple(names),
        rows=rows,
        x_dtype=np.result_type(*x_dtypes).str,
        y_dtype=np.result_type(*y_dtypes).str,
        cache=str(cache_folder(os.environ)),
    )
    x, y = (StoredArray.of(DecodedArray(table=table, part=part)) for part in ("x", "y"))
    return Source(field=field, field_y=field, x=x, y=y, columns=table.names)


def _surveyed(
    field: str, folder: str, files: list[str], label: str
) -> tuple[list[str], list[np.dtype[Any]], list[np.dtype[Any]], int]:
    """The names of the features, the dtypes of features and labels in each file, and how many rows there are. Of the
    contents, only the labels are read."""
    names: list[str] = []
    x_dtypes, y_dtypes, rows = [], [], 0
    for name in files:
        place = f"{field}, {name}"
        with opened(place, str(Path(folder, name))) as file:
            own = features(place, file, label)
            names = names or own
            if set(own) != set(names):
                raise InputError([Problem(place, f"the columns of {files[0]}", _difference(own, names))])
            x_dtypes.append(features_dtype(file, names))
            found = [labels.dtype for _, labels in parts(place, file, label, [])]
            rows += file.metadata.num_rows
        y_dtypes += found
        if len({dtype.kind == "U" for dtype in y_dtypes}) > 1:
            expected, kind = f"labels like those of {files[0]} ({y_dtypes[0]})", f"{found[-1]}"
            raise InputError([Problem(f'{place}, column "{label}"', expected, kind)])
    return names, x_dtypes, y_dtypes, rows


def _difference(own: list[str], names: list[str]) -> str:
    missing, unknown = sorted({*names} - {*own}), sorted({*own} - {*names})
    return "; ".join(f"{what} {', '.join(of)}" for what, of in (("no", missing), ("also", unknown)) if of)


@dataclass(frozen=True, kw_only=True)
class DecodedTable:
    """What to decode, and where to; the same for each host that sees the folder.

    field:  what problems are named after
    files:  names, and how many bytes they have
    names:  of the features, in order
    cache:  a folder, made where it is missing
    """

    field: str
    folder: str
    files: tuple[tuple[str, int], ...]
    label: str
    names: tuple[str, ...]
    rows: int
    x_dtype: str
    y_dtype: str
    cache: str

    def open(self, part: Literal["x", "y"]) -> Array:
        """The features (rows, len(names)) or the labels (rows,), mapped; decoded before, where this host has not yet.
        Raises InputError where the files have changed, or cannot be read or decoded."""
        x, y = np.dtype(self.x_dtype), np.dtype(self.y_dtype)
        state = [
            (name, present_state(f"{self.field}, {name}", Path(self.folder, name), size)) for name, size in self.files
        ]
        arrays = CachedArrays(
            field=self.field,
            what="the table is decoded",
            cache=self.cache,
            group=digest(self.folder, self.label),
            state=digest(state, self.names, self.x_dtype, self.y_dtype),
            arrays={"x": (x, (self.rows, len(self.names))), "y": (y, (self.rows,))},
        )
        return arrays.open(part, self._write)

    def _write(self, append: Mapping[str, Callable[[Array], None]]) -> None:
        for name, _ in self.files:
            place = f"{self.field}, {name}"
            with opened(place, str(Path(self.folder, name))) as file:
                for x, y in parts(place, file, self.label, list(self.names)):
                    append["x"](x)
                    append["y"](y)


@dataclass(frozen=True, kw_only=True)
class DecodedArray:
    """Features or labels of a table, as a `Place`."""

    table: DecodedTable
    part: Literal["x", "y"]

    def open(self) -> Array:
        return self.table.open(self.part)
