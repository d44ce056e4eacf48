"""An array where it lies: in memory, a part of another there, or mapped from a file, so that a set may be larger."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from thalweg_proto.errors import InputError, Problem

Array: TypeAlias = NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class MappedArray:
    """Where an array lies in a file: small, picklable, and the same for each process that can read the file.

    path:    absolute
    dtype:   as NumPy writes it, byte order included: "<f4", "|u1", ">f8", "<U7"
    shape:   of the array
    offset:  bytes before its first element
    fortran: the first axis is the one that runs through memory
    """

    path: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    fortran: bool = False

    @property
    def end_bytes(self) -> int:
        """How long the file must be."""
        return self.offset + math.prod(self.shape) * np.dtype(self.dtype).itemsize

    def open(self) -> Array:
        """A read-only view of the file; no element is read yet. Raises InputError where it cannot be mapped."""
        try:
            size = os.stat(self.path).st_size
            if size < self.end_bytes:
                raise InputError([Problem(self.path, f"at least {self.end_bytes} bytes", f"{size} bytes")])
            dtype: np.dtype[Any] = np.dtype(self.dtype)
            mapped = np.memmap(self.path, dtype, "r", self.offset, self.shape, "F" if self.fortran else "C")
        except OSError as error:
            expected = "a file that every host of the cluster can read"
            raise InputError([Problem(self.path, expected, error.strerror or str(error))]) from None
        return np.asarray(mapped)  # without memmap's own class, whose views cost a microsecond more each


@dataclass(frozen=True, kw_only=True, eq=False)
class ArrayPart:
    """Elements that lie together in an array in memory, in a shape of their own.

    Parts of one array that are pickled together travel with one copy of it.

    whole: (size,)
    begin: the first of the elements
    """

    whole: Array
    begin: int
    shape: tuple[int, ...]

    def open(self) -> Array:
        """A view."""
        return self.whole[self.begin : self.begin + math.prod(self.shape)].reshape(self.shape)


class Place(Protocol):
    """Where an array lies; picklable."""

    def open(self) -> Array:
        """The array, only to be read. Raises InputError where it is out of reach."""


@dataclass(frozen=True)
class StoredArray:
    """An array, and its place where it does not lie in memory by itself."""

    array: Array
    file: Place | None = None

    @staticmethod
    def of(file: Place) -> StoredArray:
        """Raises what `Place.open` raises."""
        return StoredArray(file.open(), file)

    def ship(self) -> Array | Place:
        """What another process needs: the place, or the array itself."""
        return self.array if self.file is None else self.file

    @staticmethod
    def unship(shipped: Array | Place) -> StoredArray:
        """The other way round. Raises what `Place.open` raises."""
        return StoredArray(shipped) if isinstance(shipped, np.ndarray) else StoredArray.of(shipped)
