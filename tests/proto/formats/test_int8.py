from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given
from tests.proto.formats.blocks import LONG, any_bits, bits, decoded, finite, normal, rounded_sum

from thalweg_proto.errors import ProtocolError
from thalweg_proto.formats import make_format

INT8 = make_format("int8")
LARGEST = float(np.finfo(np.float32).max)


def block(*values: float) -> np.ndarray:
    return np.array(values, dtype=np.float32)


def plain(values: np.ndarray) -> bytes:
    """The definition, element by element in float32."""
    scales, numbers = [], []
    with np.errstate(over="ignore"):
        for begin in range(0, values.size, 256):
            group = list(values[begin : begin + 256])
            if all(map(np.isfinite, group)):
                scale = np.float32(max(map(abs, group)) / np.float32(127))
                scale = np.float32(0) if scale < 2.0**-126 else scale
                scale = scale if np.isfinite(scale * np.float32(127)) else np.float32("nan")
            else:
                scale = np.float32("nan")
            sayable = np.isfinite(scale) and scale > 0
            numbers += [round(float(np.float32(v / scale))) if sayable else 0 for v in group]
            scales.append(scale)
    return struct.pack(f"<{len(scales)}f", *scales) + struct.pack(f"{len(numbers)}b", *numbers)


def test_five_numbers_by_hand():
    """The largest is 254, so the scale is 2: halves go to the even neighbour, and 254 to 127."""
    data = INT8.encode(block(254, -254, 1, 3, -5), None)
    assert bytes(data) == struct.pack("<f5b", 2.0, 127, -127, 0, 2, -2)
    assert decoded(INT8, data, 5).tolist() == [254, -254, 0, 4, -4]


def test_scales_stand_before_the_numbers():
    """257 elements: two scales, of 256 elements and of one, then 257 numbers."""
    values = np.full(257, 127.0, dtype=np.float32)
    values[256] = -12.7
    data = INT8.encode(values, None)
    assert bytes(data) == struct.pack("<2f", 1.0, np.float32(12.7) / np.float32(127)) + b"\x7f" * 256 + b"\x81"


def test_what_is_lost_stays_in_the_residual():
    """3 with the scale 2 is sent as 4; the residual is -1, and the next 3 is then sent as 2."""
    residual = np.zeros(2, dtype=np.float32)
    assert decoded(INT8, INT8.encode(block(254, 3), residual), 2).tolist() == [254, 4]
    assert residual.tolist() == [0, -1]
    assert decoded(INT8, INT8.encode(block(254, 3), residual), 2).tolist() == [254, 2]
    assert residual.tolist() == [0, 0]


@given(any_bits() | finite())
def test_encoding_agrees_with_the_definition_to_the_bit(values):
    """Groups with anything not finite, zeros and subnormal numbers included."""
    found, expected = bytes(INT8.encode(values, None)), plain(values)
    groups = -(-values.size // 256)
    np.testing.assert_array_equal(np.frombuffer(found, "<f4", groups), np.frombuffer(expected, "<f4", groups))
    assert found[4 * groups :] == expected[4 * groups :]


@pytest.mark.parametrize("n", LONG)
def test_each_group_of_a_long_block_is_encoded_alike(n):
    """Whichever piece it is in."""
    values = normal(n)
    assert bytes(INT8.encode(values, None)) == plain(values)


@pytest.mark.parametrize("n", LONG)
def test_decoding_multiplies_each_group_by_its_scale(n):
    """Each element is float32(number * scale of its group)."""
    data = INT8.encode(normal(n), None)
    groups = -(-n // 256)
    scales, numbers = np.frombuffer(data, "<f4", groups), np.frombuffer(data, np.int8, offset=4 * groups)
    expected = np.repeat(scales, 256)[:n] * numbers.astype(np.float32)
    assert bits(decoded(INT8, data, n)) == bits(expected)


@given(finite())
def test_an_element_is_off_by_half_a_scale_at_most(values):
    """|decoded - v| <= max |v| / 254, but for rounding; below 127 * 2**-126 nothing is sent."""
    off = np.abs(decoded(INT8, INT8.encode(values, None), values.size).astype(np.float64) - values)
    for begin in range(0, values.size, 256):
        most = np.abs(values[begin : begin + 256]).max()
        assert (off[begin : begin + 256] <= max(most / 254 * 1.00001, 127 * 2.0**-126)).all()


@pytest.mark.parametrize("n", LONG)
def test_with_a_residual_the_sum_is_encoded(n):
    """The bytes are those of float32(values + residual) without one."""
    values, residual = normal(n), normal(n, 1)
    total = rounded_sum(values, residual)
    assert INT8.encode(values, residual) == INT8.encode(total, None)


def test_a_group_of_tiny_numbers_waits_in_the_residual():
    """190 times the smallest number: its scale would be rounded to 1 of those, and 190 is more than int8 holds."""
    tiny = np.float32(190 * 2.0**-149)
    residual = np.zeros(1, dtype=np.float32)
    assert decoded(INT8, INT8.encode(block(tiny), residual), 1).tolist() == [0]
    assert residual.tolist() == [tiny]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_only_the_group_that_is_not_finite_is_nan(bad):
    """The middle one of three: decoded as NaN, its residual stays; the others are as ever."""
    values, residual = normal(700), normal(700, 1)
    before = residual.copy()
    good = values.copy()
    values[300] = bad
    out = decoded(INT8, INT8.encode(values, residual), 700)
    assert np.flatnonzero(np.isnan(out)).tolist() == list(range(256, 512))
    assert (residual[256:512] == before[256:512]).all()
    rest = np.r_[0:256, 512:700]
    residual_of_good = before.copy()
    expected = decoded(INT8, INT8.encode(good, residual_of_good), 700)
    assert bits(out[rest]) == bits(expected[rest])
    assert bits(residual[rest]) == bits(residual_of_good[rest])


def test_the_largest_numbers_are_finite_or_nan():
    """Near the end of float32 127 * scale may overflow; then the group counts as not finite."""
    values = np.nextafter(np.float32(LARGEST), np.float32(0)) - np.arange(64, dtype=np.float32) * np.float32(2.0**104)
    for value in [np.float32(LARGEST), *values]:
        residual = np.zeros(1, dtype=np.float32)
        [out] = decoded(INT8, INT8.encode(block(value), residual), 1)
        assert (np.isnan(out) and residual[0] == 0) or float(out) + float(residual[0]) == value


@pytest.mark.parametrize("scale", [-1.0, -1e-45, np.inf, -np.inf])
def test_a_scale_that_no_encoder_writes_is_named(scale):
    """The error names the group and what was found there, and nothing is written."""
    data = struct.pack("<2f", 1.0, scale) + bytes(300)
    out = np.full(300, 7.0, dtype=np.float32)
    with pytest.raises(ProtocolError, match=r"expected scales >= 0, or NaN, .* found (-|inf).* for group 1 of 2"):
        INT8.decode(memoryview(data), out)
    assert (out == 7).all()


def test_a_nan_of_any_kind_is_a_scale():
    """Signalling ones, too: decoded as NaN, without a warning."""
    for word in (0x7F800001, 0xFFC00000):
        assert np.isnan(decoded(INT8, struct.pack("<I3b", word, 0, 1, -128), 3)).all()
