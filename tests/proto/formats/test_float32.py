from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given
from tests.proto.formats.blocks import any_bits, bits, decoded

from thalweg_proto.formats import make_format

FLOAT32 = make_format("float32")


def test_two_numbers_by_hand():
    """1.0 is 0x3f800000 and -2.5 is 0xc0200000, little-endian."""
    data = FLOAT32.encode(np.array([1.0, -2.5], dtype=np.float32), None)
    assert bytes(data) == bytes.fromhex("0000803f 000020c0")


@given(any_bits())
def test_every_bit_arrives(values):
    """NaN payloads and the sign of zero included; the bytes are those of struct."""
    data = FLOAT32.encode(values, None)
    assert bytes(data) == struct.pack(f"<{values.size}I", *bits(values))
    assert bits(decoded(FLOAT32, data, values.size)) == bits(values)


def test_nothing_is_copied():
    """What encode returns is the memory of the array."""
    values = np.zeros(3, dtype=np.float32)
    data = FLOAT32.encode(values, None)
    values[1] = 1.0
    assert bytes(data[4:8]) == bytes.fromhex("0000803f")


def test_a_residual_is_refused():
    """Whoever hands one over would wait in vain for what is in it."""
    with pytest.raises(ValueError, match="keeps no residual"):
        FLOAT32.encode(np.zeros(3, dtype=np.float32), np.zeros(3, dtype=np.float32))
