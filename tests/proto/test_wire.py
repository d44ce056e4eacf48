from __future__ import annotations

import numpy as np
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from thalweg_proto.errors import ProtocolError, SpoiltError
from thalweg_proto.v1.parameter_server_pb2 import TOPK, Block, BlockHeader, Format
from thalweg_proto.wire import (
    HEADER_BYTES_MAX,
    block_parts,
    checksum,
    pack_block,
    seal,
    sealed_number,
    unpack_block,
)

U32 = st.integers(0, 2**32 - 1)
U64 = st.integers(0, 2**64 - 1)
HEADERS = st.builds(
    BlockHeader,
    protocol_version=U32,
    job_id=st.text(max_size=9),
    generation=U64,
    step=U64,
    part_begin=U32,
    part_end=U32,
    begin=U64,
    end=U64,
    format=st.sampled_from(Format.values()),
    version=U64,
    sender=U32,
)
LENGTHS = st.integers(0, 40) | st.sampled_from([126, 127, 128, 129, 16_383, 16_384, 16_385])
DATA = LENGTHS.flatmap(lambda n: st.binary(min_size=min(n, 40), max_size=min(n, 40)).map(lambda end: end.zfill(n)))


@given(HEADERS, st.lists(DATA, max_size=3))
def test_what_is_packed_is_a_block_in_protobufs_own_encoding(header, data):
    """The generated class reads it, and would write the same bytes where there is data."""
    message = pack_block(header, data)
    block = Block.FromString(message)
    assert (block.header, block.data) == (header, b"".join(data))
    if block.data and header.ByteSize():
        assert message == Block(header=header, data=block.data).SerializeToString()


@given(HEADERS, DATA)
def test_what_the_generated_class_writes_is_read(header, data):
    """Whatever of it is empty, and so not written at all."""
    found, view = unpack_block(Block(header=header, data=data).SerializeToString())
    assert (found, bytes(view)) == (header, data)


@given(HEADERS, st.lists(DATA, max_size=3))
def test_unpacking_undoes_packing(header, data):
    """unpack(pack(header, data)) == header, data."""
    found, view = unpack_block(pack_block(header, data))
    assert (found, bytes(view)) == (header, b"".join(data))


def test_arrays_are_packed_by_their_bytes():
    """The length counts bytes, not elements."""
    array = np.arange(5, dtype=np.float32)
    _, view = unpack_block(pack_block(BlockHeader(step=1), [array.data, array[:2].data]))
    assert np.frombuffer(view, dtype=np.float32).tolist() == [0, 1, 2, 3, 4, 0, 1]


def test_the_data_is_a_view_of_the_message():
    """It is not copied, and cannot be written."""
    message = pack_block(BlockHeader(step=1), [b"abc"])
    view = unpack_block(message)[1]
    assert view.obj is message
    assert view.readonly


@given(HEADERS, HEADERS, DATA, DATA)
def test_fields_in_any_order_or_twice_are_read_as_protobuf_reads_them(header, other, data, more):
    """Of what comes twice protobuf merges headers, and takes the last data; what it does not know is passed over."""
    first, second = Block(header=header).SerializeToString(), Block(header=other).SerializeToString()
    bytes_, others = Block(data=data).SerializeToString(), Block(data=more).SerializeToString()
    unknown = b"\x78\x05"  # field 15, a number
    merged = BlockHeader.FromString(header.SerializeToString() + other.SerializeToString())
    for message, expected in (
        (bytes_ + first, (header, data)),
        (first + second + bytes_, (merged, data)),
        (first + bytes_ + second, (merged, data)),
        (first + Block(data=data + b"x").SerializeToString() + others, (header, more or data + b"x")),
        (unknown + first + bytes_, (header, data)),
        (first + bytes_ + unknown, (header, data)),
    ):
        found, view = unpack_block(message)
        assert (found, bytes(view)) == expected


def same_as_the_generated_class(message: bytes) -> None:
    """Reads `message` both ways: the same block, or none; and nothing but a ProtocolError is raised."""
    try:
        expected = Block.FromString(message)
    except DecodeError:
        with pytest.raises(ProtocolError):
            unpack_block(message)
    else:
        header, view = unpack_block(message)
        assert (header, bytes(view)) == (expected.header, expected.data)


@given(st.binary(max_size=60))
def test_any_bytes_are_read_as_the_generated_class_reads_them(message):
    """A block, or ProtocolError."""
    same_as_the_generated_class(message)


@given(HEADERS, st.binary(max_size=40), st.data())
def test_a_damaged_block_is_read_as_the_generated_class_reads_it(header, data, draw):
    """Bytes missing, changed or too many, anywhere."""
    message = pack_block(header, [data])
    begin = draw.draw(st.integers(0, len(message)))
    end = draw.draw(st.integers(begin, min(begin + 2, len(message))))
    same_as_the_generated_class(message[:begin] + draw.draw(st.binary(max_size=3)) + message[end:])
    same_as_the_generated_class(message[:begin])


@pytest.mark.parametrize(
    "length", [b"\x83\x00", b"\x83\x80\x80\x80\x00", b"\x83\x80\x80\x80\x80\x00", b"\xff\xff\xff\xff\x7f", b"\x83"]
)
def test_a_length_may_be_written_long(length):
    """Protobuf takes 3 in one byte as in five; more than there is, or no end, is no block."""
    same_as_the_generated_class(b"\x0a\x00\x12" + length + b"abc")


def test_a_message_that_is_none_says_so():
    """What was expected and what was there; a header of other bytes is named."""
    with pytest.raises(ProtocolError, match="expected a Block; found 5 bytes that are none"):
        unpack_block(b"\x0a\x09\x12\x00\x00")
    with pytest.raises(ProtocolError, match="header: expected a BlockHeader; found"):
        unpack_block(b"\x0a\x02\xff\xff\x12\x00")


def test_a_header_takes_no_more_than_is_said():
    """With the longest name a job can have, an id behind it, and the largest numbers."""
    header = BlockHeader(job_id="x" * (128 + 64), format=TOPK)
    for field in ("protocol_version", "part_begin", "part_end", "sender"):
        setattr(header, field, 2**32 - 1)
    for field in ("generation", "step", "begin", "end", "version"):
        setattr(header, field, 2**64 - 1)
    assert len(header.ListFields()) == len(header.DESCRIPTOR.fields)
    assert len(seal(block_parts(header, [bytes(2**20)]), 2**64 - 1)) - 2**20 <= HEADER_BYTES_MAX


# Number and checksum


def words_added_up(data: bytes) -> int:
    """The definition, word by word."""
    padded = data + bytes(-len(data) % 8)
    return sum(int.from_bytes(padded[at : at + 8], "little") for at in range(0, len(padded), 8)) % 2**64


@given(st.lists(st.binary(max_size=40), max_size=5))
def test_the_checksum_adds_up_64_bit_words(parts):
    """Of all parts one after the other, wherever one ends and the next begins."""
    assert checksum(parts) == words_added_up(b"".join(parts))


def test_the_checksum_of_an_array_is_that_of_its_bytes():
    """Past 2^64 it begins at 0 again."""
    array = np.full(1000, -1.5, dtype=np.float32)
    assert checksum([b"abc", array.data]) == words_added_up(b"abc" + array.tobytes())


@given(HEADERS, DATA, U64)
def test_a_sealed_block_is_read_by_everybody(header, data, number):
    """Its number and checksum are fields of the generated class, which computes the same one as the README does."""
    message = seal(block_parts(header, [data]), number)
    block = Block.FromString(message)
    assert (block.header, block.data, block.number) == (header, data, number)
    assert sealed_number(message) == number
    assert unpack_block(message) == unpack_block(message, checked=True) == (header, data)
    if number and data and header.ByteSize():
        plain = Block(header=header, data=data, number=number)
        written = plain.SerializeToString()
        plain.checksum = checksum([written[: -9 - len(data)], written[-9:]])  # without the data
        assert plain.SerializeToString() == message


@given(HEADERS, DATA, st.data())
def test_any_flipped_bit_is_noticed(header, data, draw):
    """In header, data, number or checksum; of a block with a number, in all but its data."""
    number = draw.draw(st.integers(0, 1)) * 7
    message = bytearray(seal(block_parts(header, [data]), number))
    behind = len(message) - 18  # number and checksum
    data_at = range(behind - len(data), behind) if number else range(0)
    at = draw.draw(st.integers(0, len(message) - 1).filter(lambda at: at not in data_at))
    message[at] ^= 1 << draw.draw(st.integers(0, 7))
    with pytest.raises(SpoiltError, match=r"checksum: expected \w{16}; found \w{16} of|without"):
        sealed_number(bytes(message))


@given(st.binary(max_size=40))
def test_what_is_not_sealed_is_no_message_of_a_stream(message):
    """Too short, or without number and checksum; any bytes whatever raise nothing else."""
    with pytest.raises(SpoiltError):
        sealed_number(message + b"\x00")


def test_a_client_may_leave_the_checksum_out_or_send_it_alone():
    """Where it is there, it is looked at, also where the fields stand in another order; it has to be the last."""
    plain = Block(header=BlockHeader(step=3), data=b"12345678")
    total = checksum([plain.SerializeToString()])
    plain.checksum = total
    assert bytes(unpack_block(plain.SerializeToString())[1]) == b"12345678"
    plain.checksum = total ^ 1
    with pytest.raises(SpoiltError, match=f"checksum: expected {total ^ 1:016x}; found {total:016x} of 14 bytes"):
        unpack_block(plain.SerializeToString())
    turned = Block(data=b"12345678").SerializeToString() + Block(header=BlockHeader(step=3)).SerializeToString()
    sealed = Block(checksum=checksum([turned])).SerializeToString()
    assert bytes(unpack_block(turned + sealed)[1]) == b"12345678"
    with pytest.raises(SpoiltError):
        unpack_block(turned[:3] + b"9" + turned[4:] + sealed)
    with pytest.raises(ProtocolError, match="checksum: expected as the last field"):
        unpack_block(sealed + turned)
