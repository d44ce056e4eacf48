from __future__ import annotations

import math
import struct
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.proto.formats.blocks import LONG, any_bits, bits, decoded, finite, normal, rounded_sum

from thalweg_proto.errors import ProtocolError
from thalweg_proto.formats import make_format

FRACTIONS = st.sampled_from([0.01, 0.1, 0.3, 0.5, 1.0, 1e-9])


def block(*values: float) -> np.ndarray:
    return np.array(values, dtype=np.float32)


def packed(index: list[int], elements: list[float]) -> bytes:
    return struct.pack(f"<{len(index)}I{len(elements)}f", *index, *elements)


def largest(values: np.ndarray, k: int) -> list[int]:
    """The definition: sort by magnitude, NaN above all and the lower index first among equals; k of them, ascending."""
    words = [word & 0x7FFFFFFF for word in bits(values)]
    return sorted(sorted(range(len(words)), key=lambda i: (-words[i], i))[:k])


def test_two_of_five_by_hand():
    """Indices 1 and 4 hold the largest magnitudes: indices first, then the elements."""
    topk = make_format("topk", fraction=0.4)
    data = topk.encode(block(1, -5, 2, 0, 3), None)
    assert bytes(data) == bytes.fromhex("01000000 04000000 0000a0c0 00004040")
    assert decoded(topk, data, 5).tolist() == [0, -5, 0, 0, 3]


def test_what_waits_is_sent_once_it_is_large_enough():
    """One of four a step: the others grow in the residual until it is their turn."""
    topk = make_format("topk", fraction=0.25)
    residual = np.zeros(4, dtype=np.float32)
    sent = [decoded(topk, topk.encode(block(4, 3, 2, 1), residual), 4).tolist() for _ in range(3)]
    assert sent == [[4, 0, 0, 0], [0, 6, 0, 0], [8, 0, 0, 0]]
    assert residual.tolist() == [0, 3, 6, 3]


def test_among_equals_the_lower_index_comes_first():
    """Whatever the sign; all zeros are equals, too."""
    topk = make_format("topk", fraction=0.5)
    assert bytes(topk.encode(block(1, -2, 2, -2, 3, 2), None)) == packed([1, 2, 4], [-2, 2, 3])
    assert bytes(topk.encode(block(0, -0.0, 0, 0), None)) == packed([0, 1], [0, -0.0])


@pytest.mark.parametrize(
    ("n", "fraction", "k"), [(1, 0.01, 1), (100, 0.01, 1), (101, 0.01, 2), (100, 0.07, 7), (7, 1, 7)]
)
def test_how_many_are_kept(n, fraction, k):
    """ceil(n * fraction) of the decimal fraction: 100 * 0.07 is above 7 in float64, and is 7."""
    topk = make_format("topk", fraction=fraction)
    assert topk.kept(n) == k
    assert topk.encoded_bytes(n) == 8 * k


@given(st.integers(1, 2**32), st.integers(1, 1000))
def test_kept_is_the_exact_ceiling(n, thousandths):
    """In whole numbers; from 1 to n."""
    kept = make_format("topk", fraction=thousandths / 1000).kept(n)
    assert kept == math.ceil(Fraction(n * thousandths, 1000))
    assert 1 <= kept <= n


@given(any_bits() | finite(), FRACTIONS)
def test_the_elements_sent_are_those_of_the_definition(values, fraction):
    """Index by index and bit by bit, whatever the bits are."""
    topk = make_format("topk", fraction=fraction)
    index = largest(values, topk.kept(values.size))
    data = topk.encode(values, None)
    assert data[: 4 * len(index)] == struct.pack(f"<{len(index)}I", *index)
    assert data[4 * len(index) :] == values[index].tobytes()


@given(st.lists(st.sampled_from([0.0, 1.0, -1.0, 2.0]), min_size=1, max_size=100), FRACTIONS)
def test_ties_are_broken_as_in_the_definition(values, fraction):
    """With many equal magnitudes."""
    topk = make_format("topk", fraction=fraction)
    index = largest(block(*values), topk.kept(len(values)))
    assert bytes(topk.encode(block(*values), None)) == packed(index, [values[i] for i in index])


@pytest.mark.parametrize("n", LONG)
@pytest.mark.parametrize("levels", [3, 10**9])
def test_ties_across_pieces_are_broken_as_in_the_definition(n, levels):
    """Long blocks, with many equal magnitudes or with few."""
    values = np.random.default_rng(n).integers(-levels, levels, n).astype(np.float32)
    topk = make_format("topk", fraction=0.7)
    index = largest(values, topk.kept(n))
    assert bytes(topk.encode(values, None)) == packed(index, values[index].tolist())


@given(any_bits() | finite(), FRACTIONS)
def test_all_others_are_decoded_as_zero(values, fraction):
    """The decoded block is zero but for the elements sent, which have their bits."""
    topk = make_format("topk", fraction=fraction)
    index = largest(values, topk.kept(values.size))
    expected = np.zeros(values.size, dtype=np.float32)
    expected[index] = values[index]
    assert bits(decoded(topk, topk.encode(values, None), values.size)) == bits(expected)


@pytest.mark.parametrize("n", LONG)
def test_with_a_residual_the_sum_is_encoded(n):
    """The bytes are those of float32(values + residual) without one; the residual is the sum but for what was sent."""
    topk = make_format("topk")
    values, residual = normal(n), normal(n, 1)
    total = rounded_sum(values, residual)
    data = topk.encode(values, residual)
    assert data == topk.encode(total, None)
    assert (residual == total - decoded(topk, data, n)).all()


def test_a_block_that_is_not_finite_leaves_the_whole_residual():
    """Two NaN and one place: the first is sent, and neither reaches the residual."""
    topk = make_format("topk", fraction=0.25)
    residual = block(1, 2, 3, 4)
    out = decoded(topk, topk.encode(block(9, np.nan, np.nan, 9), residual), 4)
    assert np.isnan(out).tolist() == [False, True, False, False]
    assert residual.tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize("fraction", [0, -0.1, 1.01, math.nan, math.inf])
def test_a_fraction_out_of_range_is_refused(fraction):
    """The error says what was found."""
    with pytest.raises(ValueError, match=rf"expected a fraction in \(0, 1\] for the format topk; found {fraction}"):
        make_format("topk", fraction=fraction)


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ([0, 5], "expected indices below 5 in the format topk; found 5"),
        ([0, 2**32 - 1], "expected indices below 5 in the format topk; found 4,294,967,295"),
        ([3, 3], "expected indices that ascend strictly in the format topk; found 3 after 3"),
        ([4, 1], "expected indices that ascend strictly in the format topk; found 1 after 4"),
    ],
)
def test_indices_that_no_encoder_writes_are_named(index, message):
    """Out of range, twice the same, out of order: what was found is in the error, and nothing is written."""
    out = np.full(5, 7.0, dtype=np.float32)
    with pytest.raises(ProtocolError, match=message):
        make_format("topk", fraction=0.4).decode(memoryview(packed(index, [1, 1])), out)
    assert (out == 7).all()
