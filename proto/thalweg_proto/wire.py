"""A Block message (v1/parameter_server.proto) to bytes and back, without protobuf's copies of the data.

Rules:
  - What is sent is a plain Block, in protobuf's own encoding: header, then data. The data is appended to the header's
    bytes, so it is copied once, into the message; a generated class reads it like any other.
  - What comes in is read where it lies: `data` is a view of the message. A message whose fields stand in another order,
    or twice, as protobuf allows, is read by the generated class.
  - Bytes that are no Block raise ProtocolError; nothing else is ever raised.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from google.protobuf.message import DecodeError

from thalweg_proto.errors import ProtocolError
from thalweg_proto.v1.parameter_server_pb2 import Block, BlockHeader

Bytes = bytes | bytearray | memoryview
_HEADER_TAG: Final = Block.HEADER_FIELD_NUMBER << 3 | 2  # 2: length-delimited
_DATA_TAG: Final = Block.DATA_FIELD_NUMBER << 3 | 2
HEADER_BYTES_MAX: Final = 1024
"""What a header and the lengths take at most: a message is its data and this."""


def pack_block(header: BlockHeader, data: Sequence[Bytes]) -> bytes:
    """A Block whose data are the bytes of `data`, one after the other."""
    head = header.SerializeToString()
    length = sum(memoryview(part).nbytes for part in data)
    return b"".join((_prefix(_HEADER_TAG, len(head)), head, _prefix(_DATA_TAG, length), *data))


def unpack_block(message: bytes) -> tuple[BlockHeader, memoryview]:
    """The header and the data of a Block, the data as a view of `message`. ProtocolError where it is none."""
    try:
        begin, end = _field(message, 0, _HEADER_TAG)
        data_begin, data_end = _field(message, end, _DATA_TAG)
        if data_end == len(message):
            return BlockHeader.FromString(message[begin:end]), memoryview(message)[data_begin:data_end]
    except _OtherOrderError:
        pass
    except DecodeError as error:
        raise ProtocolError(f"header: expected a BlockHeader; found {error}") from error
    try:
        block = Block.FromString(message)
    except DecodeError as error:
        raise ProtocolError(f"expected a Block; found {len(message)} bytes that are none ({error})") from error
    return block.header, memoryview(block.data)


class _OtherOrderError(Exception):
    """The message is not what `pack_block` makes; it may still be a Block."""


def _prefix(tag: int, length: int) -> bytes:
    """The tag and the length of a length-delimited field."""
    prefix = bytearray((tag,))
    while length >= 0x80:
        prefix.append(length & 0x7F | 0x80)
        length >>= 7
    prefix.append(length)
    return bytes(prefix)


def _field(message: bytes, at: int, tag: int) -> tuple[int, int]:
    """Where the contents of the length-delimited field at `at` begin and end."""
    if at >= len(message) or message[at] != tag:
        raise _OtherOrderError
    length = shift = 0
    for i in range(at + 1, min(at + 6, len(message))):
        length |= (message[i] & 0x7F) << shift
        if message[i] < 0x80:
            if i + 1 + length > len(message):
                raise _OtherOrderError
            return i + 1, i + 1 + length
        shift += 7
    raise _OtherOrderError
