"""Read the idx format of MNIST: plain files are mapped, gzipped ones decoded into memory.

The format, from http://yann.lecun.com/exdb/mnist: two zero bytes, a type code, the number of axes, the length of each
axis as a big-endian int32, then the elements, big-endian, the last axis fastest.
"""

from __future__ import annotations

import gzip
import os
import struct
import zlib

import numpy as np

from thalweg_proto.errors import InputError, Problem
from thalweg_worker.datasets.npy import DEFLATE_RATIO_MAX, Readable, read_into
from thalweg_worker.datasets.stored import MappedArray, StoredArray

DTYPES = {0x08: "|u1", 0x09: "|i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


def read_idx(field: str, path: str) -> StoredArray:
    """The array of an idx or idx.gz file. Raises InputError where it is damaged or of no use."""
    size = os.stat(path).st_size
    if not path.lower().endswith(".gz"):
        with open(path, "rb") as stream:
            file = _read_header(field, path, stream)
        if size != file.end_bytes:
            raise _wrong_length(field, size, file)
        return StoredArray.of(file)

    try:
        with gzip.open(path, "rb") as stream:
            file = _read_header(field, path, stream)
            if file.end_bytes > DEFLATE_RATIO_MAX * size + 1024:
                raise _wrong_length(field, f"at most {DEFLATE_RATIO_MAX * size}", file)
            array = np.empty(file.shape, file.dtype)
            read_into(stream, array.reshape(-1).view(np.uint8).data)
            if stream.read(1):  # reading to the end also compares the checksum
                raise _wrong_length(field, "more", file)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError([Problem(field, "a whole idx file", f"a truncated or damaged one ({error})")]) from None
    return StoredArray(array)


def _read_header(field: str, path: str, stream: Readable) -> MappedArray:
    magic = stream.read(4)
    if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] not in DTYPES or magic[3] == 0:
        found = f"{magic.hex(' ') or 'nothing'} (bad magic number)"
        hint = "a gzipped file must have a name that ends in .gz" if magic[:2] == b"\x1f\x8b" else ""
        raise InputError([Problem(field, "an idx file, which begins with 00 00", found, hint)])
    lengths = stream.read(4 * magic[3])
    if len(lengths) < 4 * magic[3]:
        raise InputError([Problem(field, "a whole idx file", "a truncated header")])
    shape = struct.unpack(f">{magic[3]}i", lengths)
    if min(shape) < 1:
        raise InputError([Problem(field, "at least one sample along the first axis", f"shape {shape}")])
    return MappedArray(path=path, dtype=DTYPES[magic[2]], shape=shape, offset=4 + 4 * magic[3])


def _wrong_length(field: str, found: int | str, file: MappedArray) -> InputError:
    promised = f"{found} bytes, where its header promises {file.end_bytes}"
    truncated = isinstance(found, int) and found < file.end_bytes
    return InputError([Problem(field, "a whole idx file", promised, "the file is truncated" if truncated else "")])
