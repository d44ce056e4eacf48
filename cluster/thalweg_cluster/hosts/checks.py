"""What a message must be to be let in. Pure: what is wrong, in words, with the gRPC status that says so."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import grpc

from thalweg_cluster.server.telemetry import DoorCounts
from thalweg_proto.blocks import BLOCK_ELEMENTS_MAX, Shards
from thalweg_proto.errors import ProtocolError, SpoiltError
from thalweg_proto.formats import WireFormat, make_format
from thalweg_proto.messages import PROTOCOL_VERSION
from thalweg_proto.names import SAFE, is_safe
from thalweg_proto.v1 import parameter_server_pb2 as pb
from thalweg_proto.wire import Bytes, block_parts

NAME_CHARACTERS_MAX = 255
"""No name of ours is as long: of a longer one that comes in no more is looked at."""
FORMAT_NAMES: Mapping[int, str] = {pb.FLOAT32: "float32", pb.BFLOAT16: "bfloat16", pb.INT8: "int8", pb.TOPK: "topk"}
FORMAT_NUMBERS: Mapping[str, Any] = {name: number for number, name in FORMAT_NAMES.items()}


class Refusal(NamedTuple):
    """Why a message is not let in."""

    status: grpc.StatusCode
    details: str


class RefusedError(ProtocolError):
    """A message was not let in."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.details)
        self.refusal = refusal


@dataclass(frozen=True, kw_only=True)
class Expected:
    """What the server of one host expects.

    host, hosts: which one it is, and of how many
    counts:      what becomes of the pushes that come in at its doors
    """

    job_id: str
    generation: int
    host: int
    hosts: int
    shards: Shards
    gradients: WireFormat
    parameters: WireFormat
    counts: DoorCounts = field(default_factory=DoorCounts, compare=False)

    def pack(self, index: int, data: Bytes, **header: Any) -> list[Bytes]:
        """A block of this host's, to be sealed as a message; `header` is the rest of its header."""
        block = self.shards.blocks[index]
        return block_parts(
            pb.BlockHeader(
                protocol_version=PROTOCOL_VERSION,
                job_id=self.job_id,
                generation=self.generation,
                begin=block.begin,
                end=block.end,
                sender=1 + self.host,
                **header,
            ),
            [data],
        )


def check_version(protocol_version: int) -> Refusal | None:
    """Whether a message is of this protocol."""
    if protocol_version == PROTOCOL_VERSION:
        return None
    return _precondition("protocol_version", PROTOCOL_VERSION, protocol_version, "both sides need the same release")


def check_names(protocol_version: int, job_id: str, generation: int, expected: Expected) -> Refusal | None:
    """Whether a message is of this protocol, this job and its present membership."""
    refusal = check_version(protocol_version)
    if refusal is not None:
        return refusal
    if job_id != expected.job_id:
        if not is_safe(job_id[:NAME_CHARACTERS_MAX]):
            return _invalid("job_id", SAFE, repr(job_id))
        return Refusal(grpc.StatusCode.NOT_FOUND, f"job_id: expected {expected.job_id!r}; found {job_id!r}")
    if generation != expected.generation:
        hint = "Status gives the present one"
        return _precondition("generation", expected.generation, generation, hint)
    return None


def fenced(header: pb.BlockHeader, expected: Expected) -> bool:
    """Whether a block is of this job, but of another membership."""
    return header.job_id == expected.job_id and header.generation != expected.generation


def check_push(header: pb.BlockHeader, nbytes: int, expected: Expected) -> Refusal | None:
    """Whether a gradient's block may come in: nothing is decoded, and no memory taken, before."""
    refusal = check_names(header.protocol_version, header.job_id, header.generation, expected)
    if refusal is not None:
        return refusal
    if header.sender > expected.hosts:
        return _invalid("sender", f"at most {expected.hosts}, the number of hosts", str(header.sender))
    if header.part_begin >= header.part_end:
        found = f"[{header.part_begin}, {header.part_end})"
        return _invalid("part_begin, part_end", "a range of parts that is not empty", found)
    if header.sender and header.version > header.step:
        return _invalid("version", f"at most the step, {header.step}", str(header.version))
    own = expected.shards.bounds[expected.host]
    return _check_range(header, own, expected) or _check_data(header, nbytes, expected.gradients, header.sender > 0)


def check_parameters(header: pb.BlockHeader, nbytes: int, owner: int, expected: Expected) -> Refusal | None:
    """Whether a block of parameters from host `owner` may come in."""
    refusal = check_names(header.protocol_version, header.job_id, header.generation, expected)
    if refusal is not None:
        return refusal
    if header.sender != 1 + owner:
        return _invalid("sender", f"{1 + owner}, host {owner}'s", str(header.sender))
    bounds = expected.shards.bounds[owner]
    known = {expected.parameters.name, "float32"}
    if FORMAT_NAMES.get(header.format) not in known:
        return _invalid("format", " or ".join(sorted(known)), _format_name(header.format))
    return _check_range(header, bounds, expected) or _check_data(header, nbytes, None, True)


def _check_range(header: pb.BlockHeader, bounds: tuple[int, int], expected: Expected) -> Refusal | None:
    begin, end = header.begin, header.end
    if not bounds[0] <= begin < end <= bounds[1]:
        details = f"begin, end: expected elements of the shard [{bounds[0]}, {bounds[1]}); found [{begin}, {end})"
        return Refusal(grpc.StatusCode.OUT_OF_RANGE, details)
    if header.sender and expected.shards.index(begin, end) is None:
        return _invalid("begin, end", "one of the job's blocks", f"[{begin}, {end})")
    if end - begin > BLOCK_ELEMENTS_MAX:
        return _invalid("begin, end", f"at most {BLOCK_ELEMENTS_MAX} elements", str(end - begin))
    return None


def _check_data(header: pb.BlockHeader, nbytes: int, agreed: WireFormat | None, of_job: bool) -> Refusal | None:
    name = FORMAT_NAMES.get(header.format)
    if name is None or (of_job and agreed is not None and name != agreed.name):
        expected = agreed.name if of_job and agreed is not None else ", ".join(FORMAT_NAMES.values())
        return _invalid("format", expected, _format_name(header.format))
    elements = header.end - header.begin
    needed = sent_format(header.format, agreed).encoded_bytes(elements)
    if nbytes != needed:
        return _invalid("data", f"{needed} bytes, which {elements} elements take in {name}", f"{nbytes} bytes")
    return None


def sent_format(number: int, agreed: WireFormat | None) -> WireFormat:
    """The format that a block gives by a known `number`; with the options that were agreed upon, if it is that one."""
    name = FORMAT_NAMES[number]
    return agreed if agreed is not None and agreed.name == name else make_format(name)


def refusal_of(error: ProtocolError) -> Refusal:
    """The status for a message that was not let in, or could not be read."""
    if isinstance(error, RefusedError):
        return error.refusal
    if isinstance(error, SpoiltError):
        return Refusal(grpc.StatusCode.DATA_LOSS, f"{error}; send the block again")
    return Refusal(grpc.StatusCode.INVALID_ARGUMENT, str(error))


def _format_name(number: int) -> str:
    return FORMAT_NAMES.get(number, f"format {number}")


def _invalid(field: str, expected: str, found: str) -> Refusal:
    return Refusal(grpc.StatusCode.INVALID_ARGUMENT, f"{field}: expected {expected}; found {found}")


def _precondition(field: str, expected: int, found: int, hint: str) -> Refusal:
    details = f"{field}: expected {expected}; found {found}: {hint}"
    return Refusal(grpc.StatusCode.FAILED_PRECONDITION, details)
