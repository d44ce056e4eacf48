"""Decide what is converted once, before the start, and what each time it is gathered.

Converting once makes gathering a plain copy, but takes memory, in the object store of each host. So

- what needs no conversion stays where it is, mapped from its file or in memory;
- elements smaller than float32 stay as they are: they gather so much quicker that the conversion costs nothing
  (128 rows of 784: 43 us with conversion and scaling from uint8, 50 us plain from float32);
- the rest is converted once where the result is at most CONVERTED_BYTES_MAX, else each time it is gathered.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import DTypeLike

from thalweg_proto.errors import InputError, Problem
from thalweg_worker.datasets.gather import Convert, cast
from thalweg_worker.datasets.stored import StoredArray

CONVERTED_BYTES_MAX = 256 << 20
CHUNK_ELEMENTS = 1 << 18


def convert_once(field: str, stored: StoredArray, convert: Convert | None, out: DTypeLike) -> StoredArray | None:
    """The array converted to dtype `out`, in memory; None where it is better left as it is.

    convert: None where it is of that dtype already

    Raises InputError where the file's order of axes makes gathering rows hopeless.
    """
    array = stored.array
    if array.flags.c_contiguous and (convert is None or array.itemsize < 4):
        return None
    if array.size * np.dtype(out).itemsize > CONVERTED_BYTES_MAX:
        if array.flags.c_contiguous:
            return None
        hint = "np.save(file, np.ascontiguousarray(array))"
        raise InputError([Problem(field, "rows that lie together (C order)", "Fortran order", hint)])
    converted = np.empty(array.shape, out)
    rows = max(1, CHUNK_ELEMENTS // array[:1].size)
    for begin in range(0, len(array), rows):
        (convert or cast)(array[begin : begin + rows], converted[begin : begin + rows])
    return StoredArray(converted)
