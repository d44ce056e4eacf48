"""Messages between hosts, and blocks (v1/parameter_server.proto), to bytes and back, without protobuf's copies of data.

Rules:
  - What is sent is a plain protobuf message, in protobuf's own encoding. A block is its header, then its data, which is
    so copied once, into the message; then, sealed, its number and its checksum. A generated class reads it like any
    other.
  - What comes in is read where it lies: `data` is a view of the message. A message whose fields stand in another order,
    or twice, as protobuf allows, is read by the generated class.
  - Bytes that are no Block raise ProtocolError, those that do not fit their checksum SpoiltError; nothing else is ever
    raised.

The checksum is a sum of 64-bit words. It notices any bit that is flipped, and any burst of up to 64; not words that
have changed places, which no wire does. One core does 12 to 21 GB/s of it (of zlib.crc32 2.0 to 3.6; 2026-11-26, blocks
of 1 MiB, `python -m tests.benchmarks.checksum`). Between hosts it leaves out the data of a block: TLS guards them, and
with them a step took 15 % longer on a wire of 1 Gbit/s (H = 512), since NumPy gives the interpreter away for the sum,
and has to wait for it again.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Sequence
from typing import Final

import numpy as np
from google.protobuf.message import DecodeError

from thalweg_proto.errors import ProtocolError, SpoiltError
from thalweg_proto.v1.parameter_server_pb2 import Block, BlockHeader

Bytes = bytes | bytearray | memoryview
Make = Callable[[], Sequence[Bytes]]
"""Makes a message to another host when its turn comes; returns what it is made of, for `seal`."""
_HEADER_TAG: Final = Block.HEADER_FIELD_NUMBER << 3 | 2  # 2: length-delimited
_DATA_TAG: Final = Block.DATA_FIELD_NUMBER << 3 | 2
_NUMBER_TAG: Final = Block.NUMBER_FIELD_NUMBER << 3 | 1  # 1: 64 bits
_CHECKSUM_TAG: Final = Block.CHECKSUM_FIELD_NUMBER << 3 | 1
_FIXED: Final = struct.Struct("<BQ")  # a number or checksum, with its tag
_FIELD: Final = _FIXED.size
SEAL_BYTES: Final = 2 * _FIELD
"""What number and checksum take."""
_WORD: Final = 8
_WORDS_FEW: Final = 64  # below, NumPy's calls take longer than the sum
HEADER_BYTES_MAX: Final = 1024
"""What a header, the lengths, number and checksum take at most: a message is its data and this."""


def block_parts(header: BlockHeader, data: Sequence[Bytes]) -> list[Bytes]:
    """What makes a Block whose data are the bytes of `data`, one after the other; for `seal`, or to be joined."""
    head = header.SerializeToString()
    length = sum(memoryview(part).nbytes for part in data)
    return [_prefix(_HEADER_TAG, len(head)) + head + _prefix(_DATA_TAG, length), *data]


def pack_block(header: BlockHeader, data: Sequence[Bytes]) -> bytes:
    """A Block without number or checksum."""
    return b"".join(block_parts(header, data))


def seal(parts: Sequence[Bytes], number: int) -> bytes:
    """A message of these parts, with its number and its checksum."""
    if len(parts) == 1:  # words: as few calls as can be
        body = bytes(parts[0]) + _FIXED.pack(_NUMBER_TAG, number)
        return body + _FIXED.pack(_CHECKSUM_TAG, checksum(_covered(body, len(body))))
    numbered = [*parts, _fixed(_NUMBER_TAG, number)]
    covered = [numbered[0], numbered[-1]] if number else numbered
    return b"".join((*numbered, _fixed(_CHECKSUM_TAG, checksum(covered))))


def sealed_number(message: bytes) -> int:
    """The number of a sealed message. SpoiltError, with what was expected and found, where it is not what was sent."""
    end = len(message) - _FIELD
    if end < _FIELD or message[end] != _CHECKSUM_TAG or message[end - _FIELD] != _NUMBER_TAG:
        raise SpoiltError(f"expected a message with a number and a checksum; found {len(message)} bytes without")
    _check_sum(message, end)
    return int.from_bytes(message[end - _WORD : end], "little")


def checksum(parts: Iterable[Bytes]) -> int:
    """The sum of all bytes of `parts`, as 64-bit little-endian words, the last filled up with zeros, modulo 2^64."""
    total, rest = 0, b""
    for part in parts:
        view = memoryview(part).cast("B")
        if rest:  # a word that began in the part before
            missing = _WORD - len(rest)
            rest, view = rest + bytes(view[:missing]), view[missing:]
            if len(rest) < _WORD:
                continue
            total += int.from_bytes(rest, "little")
        words = len(view) // _WORD
        if words < _WORDS_FEW:
            total += sum(struct.unpack_from(f"<{words}Q", view))
        else:
            total += int(np.add.reduce(np.frombuffer(view, dtype="<u8", count=words)))
        rest = bytes(view[words * _WORD :])
    return (total + int.from_bytes(rest, "little")) % 2**64


def _check_sum(message: bytes, end: int) -> None:
    """SpoiltError where the first `end` bytes do not fit the checksum that stands behind them."""
    expected = int.from_bytes(message[end + 1 :], "little")
    found = checksum(_covered(message, end))
    if found != expected:
        raise SpoiltError(f"checksum: expected {expected:016x}; found {found:016x} of {end} bytes")


def _covered(message: bytes, end: int) -> list[memoryview]:
    """What of the first `end` bytes a checksum is of: all, but for the data of a block with a number."""
    view = memoryview(message)
    if end >= _FIELD and message[end - _FIELD] == _NUMBER_TAG and any(view[end - _WORD : end]):
        try:
            data_begin, data_end = _field(message, _field(message, 0, _HEADER_TAG)[1], _DATA_TAG)
        except _OtherOrderError:
            pass
        else:
            if data_end == end - _FIELD:
                return [view[:data_begin], view[data_end:end]]
    return [view[:end]]


def unpack_block(message: bytes, *, checked: bool = False) -> tuple[BlockHeader, memoryview]:
    """The header and the data of a Block, the data as a view of `message`.

    ProtocolError where it is none; SpoiltError where it has a checksum that it does not fit, unless that was `checked`.
    """
    try:
        begin, end = _field(message, 0, _HEADER_TAG)
        data_begin, data_end = _field(message, end, _DATA_TAG)
        if data_end == len(message) or _is_seal(message, data_end):
            if not checked and data_end < len(message):
                _check_sum(message, len(message) - _FIELD)
            return BlockHeader.FromString(message[begin:end]), memoryview(message)[data_begin:data_end]
    except _OtherOrderError:
        pass
    except DecodeError as error:
        raise ProtocolError(f"header: expected a BlockHeader; found {error}") from error
    try:
        block = Block.FromString(message)
    except DecodeError as error:
        raise ProtocolError(f"expected a Block; found {len(message)} bytes that are none ({error})") from error
    if block.HasField("checksum") and not checked:
        end = len(message) - _FIELD
        if message[end:] != _fixed(_CHECKSUM_TAG, block.checksum):
            raise ProtocolError("checksum: expected as the last field of the message; found another one behind it")
        _check_sum(message, end)
    return block.header, memoryview(block.data)


class _OtherOrderError(Exception):
    """The message is not what is made here; it may still be a Block."""


def _fixed(tag: int, value: int) -> bytes:
    """A field of 64 bits."""
    return _FIXED.pack(tag, value)


def _is_seal(message: bytes, at: int) -> bool:
    """Whether from `at` to its end a message has a checksum, or a number and a checksum."""
    rest = len(message) - at
    numbered = rest == SEAL_BYTES and message[at] == _NUMBER_TAG
    return (numbered or rest == _FIELD) and message[-_FIELD] == _CHECKSUM_TAG


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
