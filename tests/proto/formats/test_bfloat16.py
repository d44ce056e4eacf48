from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given
from tests.proto.formats.blocks import LONG, any_bits, bits, decoded, normal, rounded_sum

from thalweg_proto.formats import make_format

BFLOAT16 = make_format("bfloat16")


def words(data) -> list[int]:
    return list(struct.unpack(f"<{len(data) // 2}H", data))


def number(word: int) -> float:
    """The value of finite float32 bits; the first pattern beyond them counts as 2**128."""
    magnitude = (
        2.0**128 if word & 0x7FFFFFFF == 0x7F800000 else struct.unpack("<f", struct.pack("<I", word & 0x7FFFFFFF))[0]
    )
    return -magnitude if word >> 31 else magnitude


def plain(word: int) -> int:
    """The definition: of the two neighbours with 16 bits the nearer one, of equally near ones the even one."""
    if word & 0x7FFFFFFF > 0x7F800000:
        return word >> 16 | 0x40
    below = word >> 16
    if word & 0x7FFFFFFF == 0x7F800000:
        return below
    to_below = abs(number(word) - number(below << 16))
    to_above = abs(number(word) - number((below + 1) << 16))
    if to_below == to_above:
        return below + below % 2
    return below if to_below < to_above else below + 1


@pytest.mark.parametrize(
    ("word", "rounded"),
    [
        (0x3F800000, 0x3F80),  # 1 stays 1
        (0x3F808000, 0x3F80),  # half-way between 1 and the next: to the even one, down
        (0x3F818000, 0x3F82),  # half-way: to the even one, up
        (0x3F808001, 0x3F81),  # just above half-way
        (0x3F817FFF, 0x3F81),  # just below
        (0x3FFFFFFF, 0x4000),  # the carry goes into the exponent
        (0x80000000, 0x8000),  # -0
        (0x00000001, 0x0000),  # the smallest subnormal number
        (0x0000FFFF, 0x0001),  # a subnormal number
        (0x7F7F7FFF, 0x7F7F),  # the last that is rounded to the largest number
        (0x7F7F8000, 0x7F80),  # beyond it: infinity
        (0xFF800000, 0xFF80),  # -infinity
        (0x7FC00000, 0x7FC0),  # NaN
        (0x7F800001, 0x7FC0),  # a signalling NaN whose payload lies in the lower half
        (0x7FFFFFFF, 0x7FFF),  # a NaN that the carry would make -0
        (0xFFFFFFFF, 0xFFFF),  # and 0
    ],
)
def test_rounding_by_hand(word, rounded):
    """To nearest, ties to even; NaN stays NaN."""
    assert plain(word) == rounded
    values = np.array([word], dtype=np.uint32).view(np.float32)
    assert words(BFLOAT16.encode(values, None)) == [rounded]


@given(any_bits())
def test_rounding_agrees_with_the_definition_to_the_bit(values):
    """Whatever the bits are."""
    assert words(BFLOAT16.encode(values, None)) == [plain(word) for word in bits(values)]


@pytest.mark.parametrize("n", LONG)
@pytest.mark.parametrize("large", [1.0, 1e30, np.nan])
def test_each_piece_of_a_long_block_is_rounded_alike(n, large):
    """Also where its squares overflow, or there is a NaN in one."""
    values = normal(n)
    values[n // 2] = large
    assert words(BFLOAT16.encode(values, None)) == [plain(word) for word in bits(values)]


@given(any_bits())
def test_decoding_puts_zeros_behind(values):
    """The decoded number has the encoded bits above and zeros below."""
    data = BFLOAT16.encode(values, None)
    assert bits(decoded(BFLOAT16, data, values.size)) == [word << 16 for word in words(data)]


@given(any_bits())
def test_what_bfloat16_can_say_it_says(values):
    """Encoding what was decoded gives the same bytes."""
    data = BFLOAT16.encode(values, None)
    assert BFLOAT16.encode(decoded(BFLOAT16, data, values.size), None) == data


@pytest.mark.parametrize("n", LONG)
def test_with_a_residual_the_sum_is_rounded(n):
    """The bytes are those of float32(values + residual) without one."""
    values, residual = normal(n), normal(n, 1)
    total = rounded_sum(values, residual)
    assert BFLOAT16.encode(values, residual) == BFLOAT16.encode(total, None)


def test_small_changes_add_up():
    """1 + 1/1024 is rounded to 1; what is lost makes the fourth of them 1 + 1/128."""
    values = np.array([1 + 1 / 1024], dtype=np.float32)
    residual = np.zeros(1, dtype=np.float32)
    found = [float(decoded(BFLOAT16, BFLOAT16.encode(values, residual), 1)[0]) for _ in range(8)]
    assert found == [1, 1, 1, 1, 1 + 1 / 128, 1, 1, 1]
    assert residual.tolist() == [0]


def test_only_the_element_that_overflows_keeps_its_residual():
    """The largest float32 becomes infinity; its neighbours are sent, and keep what is lost of them."""
    values = np.array([1 + 1 / 1024, np.finfo(np.float32).max, 2], dtype=np.float32)
    residual = np.array([0, 5, 1 / 512], dtype=np.float32)
    assert decoded(BFLOAT16, BFLOAT16.encode(values, residual), 3).tolist() == [1, np.inf, 2]
    assert residual.tolist() == [1 / 1024, 5, 1 / 512]
