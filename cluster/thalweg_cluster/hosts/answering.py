"""What all gRPC doors do alike: they take messages apart, and put what goes wrong into a status.

Rules:
  - What is wrong with a message is told to who sent it, with the field's name.
  - What goes wrong with us is nobody's business: the caller gets INTERNAL and an id, and the log has the rest under it.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Iterator
from typing import Any, NoReturn, Protocol, TypeVar

import grpc
import numpy as np
from google.protobuf.message import DecodeError, Message
from numpy.typing import NDArray

from thalweg_cluster.hosts.checks import Expected, Refusal, RefusedError, check_push, check_version, fenced, refusal_of
from thalweg_cluster.hosts.events import Event
from thalweg_proto.errors import ProtocolError
from thalweg_proto.formats import make_format
from thalweg_proto.v1 import parameter_server_pb2 as pb
from thalweg_proto.wire import seal, unpack_block

DETAILS_MAX = 500
"""Characters of a status: it travels in a header, of which gRPC takes 8 KiB."""
LOG = logging.getLogger(__name__)

M = TypeVar("M", bound=Message)
R = TypeVar("R")
T = TypeVar("T")


class Behind(Protocol):
    """What stands behind a door."""

    def post(self, event: Event) -> None:
        """Hands an event to the thread that decides."""
        ...

    def room_for_part(self, host: int, step: int, parts: tuple[int, int], index: int) -> NDArray[np.float32]:
        """Where a block of a gradient from `host` is decoded to. ProtocolError where no such part is expected."""
        ...

    def room_for_parameters(self, version: int, index: int) -> NDArray[np.float32]:
        """Where a block of parameters from its owner is decoded to. ProtocolError where none is expected."""
        ...

    def snapshot(self) -> tuple[int, NDArray[np.float32]]:
        """The newest whole version and the parameters of the shard, a copy. ProtocolError before there is one."""
        ...

    def newest(self, index: int) -> tuple[int, NDArray[np.float32]]:
        """The newest whole version and what is newest of one block of the shard, a copy: that version or later."""
        ...

    def status(self) -> pb.StatusReply: ...


def unary(answer: Callable[[R, grpc.ServicerContext], T]) -> Callable[[R, grpc.ServicerContext], T]:
    """What `answer` does; where it raises, the status that says so."""

    def behave(request: R, context: grpc.ServicerContext) -> T:
        try:
            return answer(request, context)
        except Exception as error:
            _end(context, error)

    return behave


def stream(
    answer: Callable[[R, grpc.ServicerContext], Iterator[T]],
) -> Callable[[R, grpc.ServicerContext], Iterator[T]]:
    """The same for a method that answers with a stream."""

    def behave(request: R, context: grpc.ServicerContext) -> Iterator[T]:
        try:
            yield from answer(request, context)
        except Exception as error:
            _end(context, error)

    return behave


def _end(context: grpc.ServicerContext, error: Exception) -> NoReturn:
    """Ends the call, which raised `error`, with a status."""
    if isinstance(error, ProtocolError):
        status, details = refusal_of(error)
        if len(details) > DETAILS_MAX:  # it quotes what came in
            details = f"{details[:DETAILS_MAX]}..."
        context.abort(status, details)
    if not context.is_active():  # the client is gone, or gRPC has ended the call: nobody hears us
        raise error
    name = secrets.token_hex(4)
    LOG.error("error %s in a call of %s", name, context.peer(), exc_info=error)
    context.abort(grpc.StatusCode.INTERNAL, f"error {name}: the log of the server tells what it was, under this id")
    raise AssertionError("abort returned")


def check(refusal: Refusal | None) -> None:
    """RefusedError where there is a refusal."""
    if refusal is not None:
        raise RefusedError(refusal)


def parsed(kind: type[M], message: bytes) -> M:
    """The message that bytes hold. ProtocolError where they hold none."""
    try:
        return kind.FromString(message)
    except DecodeError as error:
        found = f"{len(message)} bytes that are none: {error}"
        raise ProtocolError(f"expected a {kind.__name__}; found {found}") from error


def let_in(
    message: bytes, sender: int, expected: Expected, *, checked: bool = False
) -> tuple[pb.BlockHeader, memoryview]:
    """A block of a gradient. ProtocolError, or RefusedError with the status, where it may not come in.

    checked: that it fits its checksum, if it has one
    """
    header, data = unpack_block(message, checked=checked)
    if header.sender != sender:
        raise ProtocolError(f"sender: expected {sender}; found {header.sender}")
    if fenced(header, expected):
        expected.counts.fence(host=sender > 0)
    check(check_push(header, data.nbytes, expected))
    return header, data


def whole_version(expected: Expected, behind: Behind) -> Iterator[bytes]:
    """The blocks of the newest whole version of the shard. RefusedError before there is one."""
    try:
        version, parameters = behind.snapshot()
    except ProtocolError as error:
        raise RefusedError(Refusal(grpc.StatusCode.UNAVAILABLE, str(error))) from error
    first = expected.shards.bounds[expected.host][0]
    exact = make_format("float32")
    for index in expected.shards.owned_by(expected.host):
        begin, end, _ = expected.shards.blocks[index]
        data = exact.encode(parameters[begin - first : end - first], None)
        yield seal(expected.pack(index, data, step=version, format=pb.FLOAT32), 0)


def status_handler(behind: Behind) -> grpc.RpcMethodHandler[Any, Any]:
    """Status, which is the same at every door."""

    def status(message: bytes, context: grpc.ServicerContext) -> pb.StatusReply:
        check(check_version(parsed(pb.StatusRequest, message).protocol_version))
        return behind.status()

    return grpc.unary_unary_rpc_method_handler(unary(status), response_serializer=pb.StatusReply.SerializeToString)
