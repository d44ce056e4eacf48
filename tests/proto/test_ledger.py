"""The files of a ledger: what is written is read, whatever cuts or damages it."""

from __future__ import annotations

import numpy as np
import pytest

from thalweg_proto.errors import LedgerError
from thalweg_proto.ledger import MAGIC, Division, pack_head, pack_record, unpack

DIVISION = Division(samples=10, batch_size=5, microbatches=2)
RECORDS = [(0, 1, [7, 9, 3]), (1, 1, [0, 2, 4]), (2, 0, [8, 1])]


def parts(division=DIVISION):
    return [pack_head(3, division), *(pack_record(division, t, m, np.array(rows)) for t, m, rows in RECORDS)]


def read(data):
    pages = unpack(data)
    return [(int(pages.step[i]), int(pages.microbatch[i]), pages.rows(i).tolist()) for i in range(len(pages.step))]


def test_what_is_written_is_read():
    """By hand: the head of 44 bytes, and 20 bytes and 4 for each sample of a record."""
    data = b"".join(parts())
    assert unpack(data).division == DIVISION
    assert read(data) == RECORDS
    assert data[:16] == MAGIC
    assert len(data) == 44 + 3 * 20 + 8 * 4


def test_rows_of_more_than_4_billion_samples_have_8_bytes():
    """The row 2**32 and more is read as it was written."""
    division = Division(samples=2**33, batch_size=2, microbatches=1)
    data = pack_head(0, division) + pack_record(division, 2**40, 0, np.array([2**32, 2**33 - 1]))
    assert read(data) == [(2**40, 0, [2**32, 2**33 - 1])]


def test_a_file_cut_anywhere_keeps_the_records_before_the_cut():
    """At each byte: what is whole is there, nothing is made up, and nothing is raised."""
    ends = np.cumsum([len(part) for part in parts()])
    data = b"".join(parts())
    for cut in range(len(data)):
        assert read(data[:cut]) == RECORDS[: max(0, int(np.searchsorted(ends, cut, "right")) - 1)]


def test_a_last_record_of_which_not_all_bytes_reached_the_disk_is_dropped():
    """After a loss of power a file may have its length, and zeros in it."""
    data = b"".join(parts())
    assert read(data[:-6] + bytes(6)) == RECORDS[:-1]


def test_damage_before_the_end_is_an_error_that_says_where():
    """A bit of the first record's rows; the two after it are whole."""
    data = bytearray(b"".join(parts()))
    data[44 + 16] ^= 1
    with pytest.raises(LedgerError, match="damaged at byte 44: expected CRC-32"):
        unpack(bytes(data))


def test_another_file_is_none():
    """Named by what it begins with."""
    with pytest.raises(LedgerError, match="expected a ledger, which begins with b'THALWEG-LEDGER-1'; found b'PK"):
        unpack(b"PK\x03\x04 and some more")
