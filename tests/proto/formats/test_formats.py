"""What holds for every format."""

from __future__ import annotations

import threading
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.proto.formats.blocks import LENGTHS, LONG, any_bits, bits, decoded, finite, normal, rounded_sum

from thalweg_proto.errors import ProtocolError
from thalweg_proto.formats import FORMATS, make_format
from thalweg_proto.formats.pieces import PIECE

ALL = [*(make_format(name) for name in FORMATS), make_format("topk", fraction=0.3), make_format("topk", fraction=1)]
LOSSY = [fmt for fmt in ALL if fmt.keeps_residual]
every_format = pytest.mark.parametrize("fmt", ALL, ids=repr)
every_lossy_format = pytest.mark.parametrize("fmt", LOSSY, ids=repr)


def test_formats_go_by_their_names():
    """The four of them, each found by the name it bears."""
    assert FORMATS == ("float32", "bfloat16", "int8", "topk")
    assert [make_format(name).name for name in FORMATS] == list(FORMATS)
    assert [make_format(name).exact for name in FORMATS] == [True, False, False, False]
    assert [make_format(name).keeps_residual for name in FORMATS] == [False, True, True, True]


def test_a_name_that_is_none_is_answered_with_those_there_are():
    """The error lists the names, and what was found."""
    with pytest.raises(ValueError, match="expected one of the wire formats float32, bfloat16, int8, topk; found 'fp8'"):
        make_format("fp8")


def test_an_option_that_a_format_does_not_take_is_refused():
    """Only topk takes a fraction."""
    with pytest.raises(TypeError):
        make_format("int8", fraction=0.5)


@every_format
def test_a_format_is_frozen_and_equal_to_another_of_the_same_options(fmt):
    """Threads may share one, and two sides may compare theirs."""
    options = {"fraction": fmt.fraction} if fmt.name == "topk" else {}
    assert make_format(fmt.name, **options) == fmt
    with pytest.raises(AttributeError):
        fmt.fraction = 0.5


@every_format
@given(values=any_bits())
def test_the_length_is_known_before(fmt, values):
    """encoded_bytes(n) is the length of what encode returns, in bytes, whatever is encoded."""
    data = fmt.encode(values, None)
    assert data.format == "B"
    assert data.readonly
    assert len(data) == fmt.encoded_bytes(values.size)


@every_format
@given(values=any_bits(), seed=st.integers(0, 9))
def test_values_are_only_read(fmt, values, seed):
    """A worker's gradient and a version of the parameters stay what they are: encode takes arrays it cannot write."""
    before = bits(values)
    values.flags.writeable = False
    fmt.encode(values, None)
    if fmt.keeps_residual:
        fmt.encode(values, normal(values.size, seed))
    assert bits(values) == before


@every_format
@pytest.mark.parametrize("n", [1, 700, *LONG])
def test_the_same_input_gives_the_same_bytes_in_any_thread(fmt, n):
    """Whatever was encoded before, and with several threads at work at the same time."""
    values = normal(n)
    expected = bytes(fmt.encode(values, None))
    fmt.encode(normal(2 * n, 1), None)
    found = {}

    def encode(thread: int) -> None:
        for _ in range(5):
            fmt.encode(normal(n + thread, thread), None)
            found.setdefault(thread, set()).add(bytes(fmt.encode(values, None)))

    threads = [threading.Thread(target=encode, args=(thread,)) for thread in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {thread: {expected} for thread in range(4)}


@every_format
def test_an_encoding_outlives_the_next_one(fmt):
    """Several may wait to be sent: none is overwritten by what is encoded after it."""
    blocks = [normal(300, seed) for seed in range(3)]
    data = [fmt.encode(block, None) for block in blocks]
    assert [bytes(one) for one in data] == [bytes(fmt.encode(block, None)) for block in blocks]


@every_format
def test_nothing_long_is_allocated_but_the_encoding(fmt):
    """A thread that has encoded a block before takes memory for the bytes and less than a piece beside, or for topk its
    indices once more and the elements; decoding takes less than a piece."""
    n = 32 * PIECE
    values, residual, out = normal(n), normal(n, 1), np.empty(n, dtype=np.float32)
    data = fmt.encode(values, residual if fmt.keeps_residual else None)

    def peak_bytes(call, *args) -> int:
        tracemalloc.start()
        try:
            call(*args)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    beside = 4 * PIECE + (12 * fmt.kept(n) if fmt.name == "topk" else 0)
    assert peak_bytes(fmt.encode, values, None) < len(data) + beside
    if fmt.keeps_residual:
        assert peak_bytes(fmt.encode, values, residual) < len(data) + beside
    assert peak_bytes(fmt.decode, data, out) < beside


@every_format
def test_an_encoding_may_lie_at_any_address(fmt):
    """Decoding from the middle of a message gives what decoding from its beginning does."""
    data = bytes(fmt.encode(normal(700), None))
    expected = decoded(fmt, data, 700)
    for offset in range(1, 4):
        assert bits(decoded(fmt, memoryview(b"x" * offset + data)[offset:], 700)) == bits(expected)


@every_format
@pytest.mark.parametrize("n", [1, 255, 256, 257, *LONG])
def test_a_block_may_be_part_of_a_longer_array(fmt, n):
    """Nothing beside the block is read, and nothing beside `out` is written."""
    values = np.full(n + 2, np.nan, dtype=np.float32)
    values[1:-1] = normal(n)
    data = fmt.encode(values[1:-1], None)
    assert data == fmt.encode(values[1:-1].copy(), None)
    out = np.full(n + 2, 7.0, dtype=np.float32)
    fmt.decode(data, out[1:-1])
    assert (out[0], out[-1]) == (7, 7)
    assert bits(out[1:-1]) == bits(decoded(fmt, data, n))


@every_lossy_format
@given(case=LENGTHS.flatmap(lambda n: st.tuples(*[finite(st.just(n))] * 2)))
def test_decoded_plus_residual_is_what_was_to_be_said(fmt, case):
    """In every step and for every element: decoded + new residual == float32(values + old residual), to the bit."""
    values, residual = case
    total = rounded_sum(values, residual)
    said = decoded(fmt, fmt.encode(values, residual), values.size)
    assert (said.astype(np.float64) + residual == total).all()


@every_lossy_format
@pytest.mark.parametrize("n", [*LONG, 3])
def test_over_many_steps_nothing_is_lost(fmt, n):
    """Sum of what was decoded = sum of the values - last residual, up to the rounding of one addition a step."""
    steps = 30
    residual = np.zeros(n, dtype=np.float32)
    given_sum, decoded_sum, largest = (np.zeros(n, dtype=np.float64) for _ in range(3))
    for step in range(steps):
        values = normal(n, step)
        given_sum += values
        largest = np.maximum(largest, np.abs(rounded_sum(values, residual)))
        decoded_sum += decoded(fmt, fmt.encode(values, residual), n)
    bound = steps * 2.0**-24 * largest
    assert (np.abs(decoded_sum + residual - given_sum) <= bound).all()
    assert fmt == make_format("topk", fraction=1) or np.any(residual)


@every_lossy_format
@given(values=finite())
def test_a_residual_of_zero_changes_nothing(fmt, values):
    """The first block of a run is encoded as one without a residual; -0 may become 0."""
    with_residual = decoded(fmt, fmt.encode(values, np.zeros_like(values)), values.size)
    assert np.array_equal(with_residual, decoded(fmt, fmt.encode(values, None), values.size))


@every_format
@pytest.mark.parametrize("n", [1, 300, *LONG])
@pytest.mark.parametrize("word", [0x7F800000, 0xFF800000, 0x7FC00000, 0x7F800001, 0x7FFFFFFF, 0xFFFFFFFF], ids=hex)
def test_what_is_not_finite_reaches_the_other_side(fmt, n, word):
    """One infinity or NaN of any kind, first, last or between: something decoded is not finite, and no warning."""
    for at in {0, n // 2, n - 1}:
        values = normal(n)
        values.view(np.uint32)[at] = word
        for residual in [None, normal(n, 1)] if fmt.keeps_residual else [None]:
            out = decoded(fmt, fmt.encode(values, residual), n)
            assert not np.isfinite(out[at])


@every_lossy_format
@given(case=LENGTHS.flatmap(lambda n: st.tuples(any_bits(st.just(n)), finite(st.just(n), most=3.4e38))))
def test_a_residual_stays_where_what_was_decoded_is_not_finite(fmt, case):
    """And so it is always finite. Sums that overflow are among the cases."""
    values, residual = case
    before = residual.copy()
    out = decoded(fmt, fmt.encode(values, residual), values.size)
    stays = ~np.isfinite(out)
    assert bits(residual[stays]) == bits(before[stays])
    assert np.isfinite(residual).all()
    assert np.isfinite(rounded_sum(values, before)).all() or stays.any()


@every_format
@pytest.mark.parametrize("n", [1, 300, PIECE + 1])
def test_a_wrong_length_is_named(fmt, n):
    """One byte too few, one too many, none: expected and found are in the error, and nothing is written."""
    data = bytes(fmt.encode(normal(n), None))
    for wrong in (data[:-1], data + b"\0", b""):
        out = np.full(n, 7.0, dtype=np.float32)
        with pytest.raises(ProtocolError, match=f"expected {len(data):,} bytes, .* {fmt.name}; found {len(wrong):,}"):
            fmt.decode(memoryview(wrong), out)
        assert (out == 7).all()


@every_format
@given(data=st.data())
def test_malformed_bytes_raise_only_protocol_errors(fmt, data):
    """Whatever comes in, with the right length even: decoded, or ProtocolError and nothing written."""
    n = data.draw(st.integers(1, 20) | st.just(300))
    size = fmt.encoded_bytes(n)
    out = np.full(n, 7.0, dtype=np.float32)
    try:
        fmt.decode(memoryview(data.draw(st.binary(min_size=size, max_size=size))), out)
    except ProtocolError:
        assert (out == 7).all()
