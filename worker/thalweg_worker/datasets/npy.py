"""Read .npy and .npz: sizes are checked before memory is taken, and nothing is ever unpickled."""

from __future__ import annotations

import math
import os
import zipfile
import zlib
from typing import IO, Protocol

import numpy as np

from thalweg_proto.errors import InputError, Problem, attempt
from thalweg_worker.datasets.source import Source, check_dtype
from thalweg_worker.datasets.stored import Array, MappedArray, StoredArray

DEFLATE_RATIO_MAX = 1032  # zlib's bound (https://zlib.net/zlib_tech.html): more is no honest archive


class Readable(Protocol):
    """A stream of bytes."""

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes; none at the end."""


def map_npy(field: str, path: str, *, text: bool) -> StoredArray:
    """A mapped .npy file; text: labels may be text. Raises InputError where it is damaged or of no use."""
    with open(path, "rb") as stream:
        dtype, shape, fortran = _read_header(field, stream, text=text)
        file = MappedArray(path=path, dtype=dtype.str, shape=shape, offset=stream.tell(), fortran=fortran)
        size = os.fstat(stream.fileno()).st_size
    if size < file.end_bytes:
        found = f"{size} bytes, where its header promises {file.end_bytes}"
        raise InputError([Problem(field, "a whole .npy file", found, "the file is truncated")])
    return StoredArray.of(file)


def read_npz(field: str, path: str) -> Source:
    """The arrays x and y of a .npz file, in memory. Raises InputError where it is damaged or of no use."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name.removesuffix(".npy") for name in archive.namelist()]
            if missing := {"x", "y"} - set(names):
                found = f"no {' and no '.join(sorted(missing))} in it, but {', '.join(sorted(names)) or 'nothing'}"
                raise InputError([Problem(field, "arrays x and y", found, "np.savez(file, x=..., y=...)")])
            problems: list[Problem] = []
            x = attempt(problems, lambda: _read_member(f"{field}: x", archive, "x.npy", text=False))
            y = attempt(problems, lambda: _read_member(f"{field}: y", archive, "y.npy", text=True))
    except zipfile.BadZipFile as error:
        raise InputError([Problem(field, "a whole .npz file", f"a truncated or other file ({error})")]) from None
    if x is None or y is None:
        raise InputError(problems)
    return Source(field=f"{field}: x", field_y=f"{field}: y", x=StoredArray(x), y=StoredArray(y))


def _read_member(field: str, archive: zipfile.ZipFile, name: str, *, text: bool) -> Array:
    try:
        info = archive.getinfo(name)
        with archive.open(info) as stream:
            dtype, shape, fortran = _read_header(field, stream, text=text)
            promised = stream.tell() + math.prod(shape) * dtype.itemsize
            # Not a byte more either: the checksum is compared at the member's end.
            if promised != info.file_size or promised > DEFLATE_RATIO_MAX * info.compress_size + 1024:
                found = (
                    f"{info.file_size} bytes ({info.compress_size} compressed), where its header promises {promised}"
                )
                raise InputError([Problem(field, "a whole array", found)])
            array = np.empty(shape, dtype, order="F" if fortran else "C")
            read_into(stream, array.reshape(-1, order="A").view(np.uint8).data)
    except (zipfile.BadZipFile, zlib.error, EOFError, KeyError, NotImplementedError, RuntimeError) as error:
        raise InputError([Problem(field, "a whole array", f"a damaged one ({error})")]) from None
    return np.ascontiguousarray(array)


def _read_header(field: str, stream: IO[bytes], *, text: bool) -> tuple[np.dtype[np.generic], tuple[int, ...], bool]:
    """dtype, shape and Fortran order of the .npy stream, which then stands at the first element."""
    try:
        version = np.lib.format.read_magic(stream)
        if version == (1, 0):
            shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
        elif version == (2, 0):
            shape, fortran, dtype = np.lib.format.read_array_header_2_0(stream)
        else:  # 3.0 is for names of structured arrays, which are of no use here
            raise ValueError(f"format version {version[0]}.{version[1]}")
    except (ValueError, EOFError) as error:
        found = f"a truncated or other file ({str(error).splitlines()[0]})"
        raise InputError([Problem(field, "NumPy's .npy format", found)]) from None
    check_dtype(field, dtype, text=text)
    if not shape or min(shape) < 1:
        raise InputError([Problem(field, "at least one sample along the first axis", f"shape {shape}")])
    return dtype, shape, bool(fortran)


def read_into(stream: Readable, buffer: memoryview) -> None:
    """Fill the buffer. Raises EOFError where the stream ends first."""
    filled = 0
    while filled < len(buffer):
        part = stream.read(min(len(buffer) - filled, 1 << 20))
        if not part:
            raise EOFError(f"{filled} of {len(buffer)} bytes")
        buffer[filled : filled + len(part)] = part
        filled += len(part)
