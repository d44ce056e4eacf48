"""Read a folder of .parquet files as one table, which may be larger than memory.

Rules:

- The rows are those of the files in the order of their names. All files have the same columns.
- A step takes rows from all over the table. A row by itself cannot be read from .parquet, only its whole row group (33
  ms for 25,000 rows of 100 float32, and most rows of a batch are in another one); so the table is decoded once, to .npy
  files that are mapped (128 rows of it: 0.07 ms), with a row group in memory at a time.
- They lie in a cache of each host that works on the job, one for a folder and a label, and are made anew where a file
  has another size or time. Whoever comes first makes them; the others of the host wait.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np

from thalweg_proto.errors import InputError, Problem
from thalweg_proto.job.beside import tables_in
from thalweg_worker.datasets.parquet import features, features_dtype, opened, parts
from thalweg_worker.datasets.source import Source
from thalweg_worker.datasets.stored import Array, StoredArray

VARIABLE = "THALWEG_CACHE"


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


def cache_folder(environment: Mapping[str, str]) -> Path:
    """Where decoded tables lie: THALWEG_CACHE, or a folder of the user's own (XDG base directories: cache)."""
    if given := environment.get(VARIABLE):
        return Path(given).absolute()
    cache = environment.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache, "thalweg").absolute()


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
        folder, other = self._key()
        path = Path(self.cache, f"{folder}-{other}.{part}.npy")
        try:
            if not path.exists():
                with _locked(Path(self.cache, f"{folder}.lock")):
                    if not path.exists():
                        self._decode(Path(self.cache), folder, other)
            return np.asarray(np.load(path, mmap_mode="r"))
        except OSError as error:
            raise self._no_room(f"{self.cache}: a folder to decode it to", error.strerror or str(error)) from None

    def _key(self) -> tuple[str, str]:
        """The cache's names for the folder, and for its present state."""
        state = []
        for name, size in self.files:
            try:
                found = os.stat(Path(self.folder, name))
            except OSError as error:
                expected, text = "a folder that every host of the cluster can read", error.strerror or str(error)
                raise InputError([Problem(f"{self.field}, {name}", expected, text)]) from None
            if found.st_size != size:
                expected = f"{size} bytes, as when the job was read"
                raise InputError([Problem(f"{self.field}, {name}", expected, f"{found.st_size} bytes")])
            state.append((name, size, found.st_mtime_ns))
        return _digest(self.folder, self.label), _digest(state, self.names, self.x_dtype, self.y_dtype)

    def _decode(self, cache: Path, folder: str, other: str) -> None:
        """Both files, or none. Removes those of an earlier state of the folder."""
        for old in cache.glob(f"{folder}-*"):
            old.unlink(missing_ok=True)  # whoever has mapped it keeps it
        x_dtype, y_dtype = np.dtype(self.x_dtype), np.dtype(self.y_dtype)
        needed = self.rows * (len(self.names) * x_dtype.itemsize + y_dtype.itemsize)
        free = shutil.disk_usage(cache).free
        if free < needed:
            raise self._no_room(f"{needed} bytes free in {cache}", f"{free} bytes")
        unfinished = [cache / f"{folder}-{other}.{part}.part" for part in ("x", "y")]
        try:
            self._write(unfinished[0], unfinished[1], x_dtype, y_dtype)
        except BaseException:
            for path in unfinished:
                path.unlink(missing_ok=True)
            raise
        for path in reversed(unfinished):
            path.rename(path.with_suffix(".npy"))

    def _write(self, x_path: Path, y_path: Path, x_dtype: np.dtype[Any], y_dtype: np.dtype[Any]) -> None:
        with x_path.open("wb") as x_file, y_path.open("wb") as y_file:
            shapes: tuple[tuple[Any, ...], ...] = (
                (x_file, x_dtype, (self.rows, len(self.names))),
                (y_file, y_dtype, (self.rows,)),
            )
            for stream, dtype, shape in shapes:
                header = {"descr": dtype.str, "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(stream, header)
            for name, _ in self.files:
                place = f"{self.field}, {name}"
                with opened(place, str(Path(self.folder, name))) as file:
                    for x, y in parts(place, file, self.label, list(self.names)):
                        self._append(x_file, x.astype(x_dtype, copy=False))
                        self._append(y_file, y.astype(y_dtype, copy=False))

    def _append(self, stream: IO[bytes], array: Array) -> None:
        """Not through a map: on a full disk that would be a signal, and no exception."""
        try:
            stream.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
        except OSError as error:  # not of the .parquet file, as whoever has opened that would think
            raise self._no_room(f"room in {self.cache}", error.strerror or str(error)) from None

    def _no_room(self, expected: str, found: str) -> InputError:
        hint = f"the table is decoded there; {VARIABLE} names another folder for that"
        return InputError([Problem(self.field, expected, found, hint)])


@dataclass(frozen=True, kw_only=True)
class DecodedArray:
    """Features or labels of a table, as a `Place`."""

    table: DecodedTable
    part: Literal["x", "y"]

    def open(self) -> Array:
        return self.table.open(self.part)


@contextmanager
def _locked(file: Path) -> Iterator[None]:
    """Alone, as long as it lasts, among all that use this file; whoever dies in it lets it go. The folder is made."""
    file.parent.mkdir(parents=True, exist_ok=True)
    lock = os.open(file, os.O_RDWR | os.O_CREAT, 0o600)  # to be written, or NFS does not lock it
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _digest(*of: object) -> str:
    return hashlib.sha256(repr(of).encode()).hexdigest()[:16]
