"""The files of a ledger: which samples went into which step, as the workers write it down.

Rules:
  - Each worker process has a file of its own, `RANK-RANDOM.ledger`, and only appends to it: a head, then a record for
    each microbatch, written before any of its gradient is pushed.
  - Numbers are little-endian. The head: 16 bytes MAGIC, u32 rank, u32 V, u64 N, u64 B, u32 CRC-32 of these. A record:
    u64 step, u32 microbatch, u32 count, `count` rows of the training set (u32 each, u64 where N > 2**32), u32 CRC-32
    of these. So a sample takes 4 bytes, and a microbatch 20 more.
  - What the end of a process, of its disk or of its power cut short is the end of its file: it is dropped. Damage
    before that is an error.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from thalweg_proto.errors import LedgerError

FOLDER: Final = "ledger"
"""Its name in the folder of a run."""
SUFFIX: Final = ".ledger"
MAGIC: Final = b"THALWEG-LEDGER-1"
_HEAD = struct.Struct("<16sIIQQ")
_RECORD = struct.Struct("<QII")
_CRC = struct.Struct("<I")


class Division(NamedTuple):
    """How the job deals out its stream of samples: N rows of the training set, B in a step, V microbatches."""

    samples: int
    batch_size: int
    microbatches: int

    @property
    def row_dtype(self) -> np.dtype[np.unsignedinteger[Any]]:
        return np.dtype("<u4") if self.samples <= 1 << 32 else np.dtype("<u8")


@dataclass(frozen=True)
class Pages:
    """What stands in one file; arrays (n,), of each record in the order of writing.

    division: None where not even the head is whole
    data:     the whole file; the rows of record i are `count[i]` numbers of `division.row_dtype` from byte `at[i]` on
    """

    division: Division | None = None
    data: memoryview = field(default=memoryview(b""), repr=False)
    step: NDArray[np.uint64] = field(default_factory=lambda: np.empty(0, dtype=np.uint64))
    microbatch: NDArray[np.uint64] = field(default_factory=lambda: np.empty(0, dtype=np.uint64))
    count: NDArray[np.uint64] = field(default_factory=lambda: np.empty(0, dtype=np.uint64))
    at: NDArray[np.uint64] = field(default_factory=lambda: np.empty(0, dtype=np.uint64))

    def rows(self, i: int) -> NDArray[np.unsignedinteger[Any]]:
        """The rows of the training set that record i names."""
        assert self.division is not None  # else there is no record
        rows: NDArray[np.unsignedinteger[Any]] = np.frombuffer(
            self.data, self.division.row_dtype, count=int(self.count[i]), offset=int(self.at[i])
        )
        return rows


def pack_head(rank: int, division: Division) -> bytes:
    samples, batch_size, microbatches = division
    return _checked(_HEAD.pack(MAGIC, rank, microbatches, samples, batch_size))


def pack_record(division: Division, step: int, microbatch: int, rows: NDArray[np.int64]) -> bytes:
    """rows: (count,) rows of the training set that microbatch `microbatch` of step `step` consists of"""
    return _checked(_RECORD.pack(step, microbatch, len(rows)) + rows.astype(division.row_dtype).tobytes())


def unpack(data: bytes | memoryview) -> Pages:
    """What stands in a file. LedgerError where it is none, or damaged before its end."""
    data = memoryview(data)
    if bytes(data[: len(MAGIC)]) != MAGIC[: len(data)]:
        raise LedgerError(f"expected a ledger, which begins with {MAGIC!r}; found {bytes(data[: len(MAGIC)])!r}")
    end = _HEAD.size + _CRC.size
    if not _whole(data, 0, end):
        return Pages()
    _, _, microbatches, samples, batch_size = _HEAD.unpack_from(data)
    division = Division(samples, batch_size, microbatches)
    found: list[tuple[int, int, int, int]] = []
    while (begin := end) + _RECORD.size <= len(data):
        step, microbatch, count = _RECORD.unpack_from(data, begin)
        at = begin + _RECORD.size
        end = at + count * division.row_dtype.itemsize + _CRC.size
        if not _whole(data, begin, end):
            break
        found.append((step, microbatch, count, at))
    columns = np.array(found, dtype=np.uint64).reshape(-1, 4).T
    return Pages(division, data, *columns)


def _checked(data: bytes) -> bytes:
    return data + _CRC.pack(zlib.crc32(data))


def _whole(data: memoryview, begin: int, end: int) -> bool:
    """Whether [begin, end) is there with the checksum at its end; False at the end of the file, else LedgerError."""
    if end > len(data):
        return False
    [expected] = _CRC.unpack_from(data, end - _CRC.size)
    found = zlib.crc32(data[begin : end - _CRC.size])
    if found == expected:
        return True
    if end == len(data):
        return False
    raise LedgerError(f"damaged at byte {begin}: expected CRC-32 {expected:08x}; found {found:08x}")
