"""Arrays that each host makes once from a user's files, and maps: larger than memory, and shared by its workers.

Rules:

- They are .npy files in a folder of the host's own. Whoever comes first makes them; the others of the host wait.
- They are made anew where what they are made from has another state; those of the state before are removed then.
- Either all parts are there, or none is.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from thalweg_proto.errors import InputError, Problem
from thalweg_worker.datasets.stored import Array

VARIABLE = "THALWEG_CACHE"


def cache_folder(environment: Mapping[str, str]) -> Path:
    """Where they lie: THALWEG_CACHE, or a folder of the user's own (XDG base directories: cache)."""
    if given := environment.get(VARIABLE):
        return Path(given).absolute()
    cache = environment.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache, "thalweg").absolute()


def digest(*of: object) -> str:
    """A name for values, in the cache."""
    return hashlib.sha256(repr(of).encode()).hexdigest()[:16]


@dataclass(frozen=True, kw_only=True)
class CachedArrays:
    """
    field:  what problems are named after
    what:   what happens there, for hints: "the table is decoded"
    cache:  a folder, made where it is missing
    group:  name of what they are made from
    state:  name of its present state
    arrays: dtype and shape of each part
    """

    field: str
    what: str
    cache: str
    group: str
    state: str
    arrays: Mapping[str, tuple[np.dtype[Any], tuple[int, ...]]]

    def open(self, part: str, write: Callable[[Mapping[str, Callable[[Array], None]]], None]) -> Array:
        """The array `part`, mapped.

        write: makes all parts: calls what it gets for each with its elements in order, in pieces of any shape

        Raises InputError where there is no room for them, and whatever `write` does.
        """
        path = self._path(part, "npy")
        try:
            if not path.exists():
                with _locked(Path(self.cache, f"{self.group}.lock")):
                    if not path.exists():
                        self._make(write)
            return np.asarray(np.load(path, mmap_mode="r"))
        except OSError as error:
            raise self._no_room(f"{self.cache}: a folder for it", error.strerror or str(error)) from None

    def _path(self, part: str, ending: str) -> Path:
        return Path(self.cache, f"{self.group}-{self.state}.{part}.{ending}")

    def _make(self, write: Callable[[Mapping[str, Callable[[Array], None]]], None]) -> None:
        for old in Path(self.cache).glob(f"{self.group}-*"):
            old.unlink(missing_ok=True)  # whoever has mapped it keeps it
        needed = sum(int(np.prod(shape)) * dtype.itemsize for dtype, shape in self.arrays.values())
        free = shutil.disk_usage(self.cache).free
        if free < needed:
            raise self._no_room(f"{needed} bytes free in {self.cache}", f"{free} bytes")
        unfinished = {part: self._path(part, "part") for part in self.arrays}
        try:
            with ExitStack() as stack:
                streams = {part: stack.enter_context(path.open("wb")) for part, path in unfinished.items()}
                for part, (dtype, shape) in self.arrays.items():
                    header = {"descr": dtype.str, "fortran_order": False, "shape": shape}
                    np.lib.format.write_array_header_1_0(streams[part], header)
                write({part: self._appending(stream, self.arrays[part][0]) for part, stream in streams.items()})
        except BaseException:
            for path in unfinished.values():
                path.unlink(missing_ok=True)
            raise
        for path in reversed(unfinished.values()):
            path.rename(path.with_suffix(".npy"))

    def _appending(self, stream: IO[bytes], dtype: np.dtype[Any]) -> Callable[[Array], None]:
        def append(array: Array) -> None:
            """Not through a map: on a full disk that would be a signal, and no exception."""
            array = np.ascontiguousarray(array.astype(dtype, copy=False))
            try:
                stream.write(array.reshape(-1).view(np.uint8).data)
            except OSError as error:  # not of the user's file, as whoever has opened that would think
                raise self._no_room(f"room in {self.cache}", error.strerror or str(error)) from None

        return append

    def _no_room(self, expected: str, found: str) -> InputError:
        hint = f"{self.what} there; {VARIABLE} names another folder for that"
        return InputError([Problem(self.field, expected, found, hint)])


def present_state(field: str, path: Path, size: int) -> tuple[int, int]:
    """Size and time of a file that had `size` bytes when the job was read. InputError where it is not there, on this
    host, or has another size."""
    try:
        found = os.stat(path)
    except OSError as error:
        expected = "a file that every host of the cluster can read"
        raise InputError([Problem(field, expected, error.strerror or str(error))]) from None
    if found.st_size != size:
        raise InputError([Problem(field, f"{size} bytes, as when the job was read", f"{found.st_size} bytes")])
    return size, found.st_mtime_ns


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
