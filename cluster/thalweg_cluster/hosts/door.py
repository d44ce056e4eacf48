"""The gRPC server of one host: Push, Pull and Status for everybody, Attend for the hosts of the job; and Health.

Rules:
  - Tensor bytes are received into place: a message comes in as raw bytes, its header is checked (checks.py), then its
    data is decoded to where it belongs. Nothing is decoded that is not expected.
  - Nothing is decided here: what came in is posted to the thread that decides, as an event.
  - Whatever bytes come in, the server stays up: the stream ends with a status that names the field.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from concurrent import futures
from typing import NoReturn, Protocol, TypeVar

import grpc
import numpy as np
from google.protobuf.message import DecodeError, Message
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from numpy.typing import NDArray

from thalweg_cluster.consistency.verdict import Verdict
from thalweg_cluster.hosts.checks import Expected, Refusal, RefusedError, check_names, check_push, refusal_of
from thalweg_cluster.hosts.events import Event, HostSaid, Lost, OutsidePush, PartArrived
from thalweg_cluster.hosts.outside import OutsidePushes
from thalweg_cluster.hosts.streams import Outbox
from thalweg_proto.blocks import BLOCK_ELEMENTS_MAX
from thalweg_proto.errors import ProtocolError
from thalweg_proto.formats import make_format
from thalweg_proto.messages import PROTOCOL_VERSION
from thalweg_proto.shared_memory import FLOAT_BYTES
from thalweg_proto.v1 import parameter_server_pb2 as pb
from thalweg_proto.v1.coordination_pb2 import HostMessage, LeadMessage
from thalweg_proto.wire import HEADER_BYTES_MAX, pack_block, unpack_block

MESSAGE_BYTES_MAX = BLOCK_ELEMENTS_MAX * FLOAT_BYTES * 2 + HEADER_BYTES_MAX  # topk of everything: index and value
WINDOW_BYTES = 16 << 20
"""How much of a stream may be on its way, or wait to be read. By default it is 64 KiB, and grows only as the other side
says so: that word would wait behind all the data that goes the other way."""
TRANSPORT = [
    ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
    ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
    ("grpc.http2.lookahead_bytes", WINDOW_BYTES),
    ("grpc.http2.bdp_probe", 0),
    ("grpc.http2.max_frame_size", 1 << 20),
]
SERVICES = ("thalweg.v1.ParameterServer", "thalweg.v1.Coordination")
PINGS_AT_LEAST_S = 10.0
"""How far apart a client's keepalive pings must be."""
OUTSIDE_STREAMS_MAX = 8
ANSWER_S = 60.0
"""How long the server may take to answer a push from outside."""
_RESULTS = {Verdict.ACCEPTED: pb.ACCEPTED, Verdict.DUPLICATE: pb.DUPLICATE, Verdict.LATE: pb.LATE}

M = TypeVar("M", bound=Message)


class Behind(Protocol):
    """What stands behind the door."""

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

    def status(self) -> pb.StatusReply: ...


class GrpcDoor:
    """Listens on one address for the life of a run.

    parameters: what waits to be sent to each other host in answer to its Pull with `follow`, by host
    replies:    what waits to be answered to each other host's Push, by host
    orders:     what the lead tells each other host, by host
    """

    def __init__(self, address: str, expected: Expected, behind: Behind) -> None:
        """Binds `address` ("10.0.0.3:0": a free port). RuntimeError where that fails."""
        self._expected = expected
        self._behind = behind
        others = [host for host in range(expected.hosts) if host != expected.host]
        self.parameters: Mapping[int, Outbox[bytes]] = {host: Outbox() for host in others}
        self.replies: Mapping[int, Outbox[pb.PushReply | Refusal]] = {host: Outbox() for host in others}
        self.orders: Mapping[int, Outbox[LeadMessage]] = {host: Outbox() for host in others}
        streams = 3 * len(others) + OUTSIDE_STREAMS_MAX
        self._server = grpc.server(
            futures.ThreadPoolExecutor(streams, thread_name_prefix="thalweg-door"),
            maximum_concurrent_rpcs=streams,
            options=[
                *TRANSPORT,
                ("grpc.http2.min_ping_interval_without_data_ms", int(1e3 * PINGS_AT_LEAST_S)),
                ("grpc.so_reuseport", 0),
            ],
        )
        self._health = health.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        self._server.add_generic_rpc_handlers(
            (
                grpc.method_handlers_generic_handler(
                    SERVICES[0],
                    {
                        "Push": grpc.stream_stream_rpc_method_handler(
                            self._push, response_serializer=pb.PushReply.SerializeToString
                        ),
                        "Pull": grpc.unary_stream_rpc_method_handler(self._pull),
                        "Status": grpc.unary_unary_rpc_method_handler(
                            self._status, response_serializer=pb.StatusReply.SerializeToString
                        ),
                    },
                ),
                grpc.method_handlers_generic_handler(
                    SERVICES[1],
                    {
                        "Attend": grpc.stream_stream_rpc_method_handler(
                            self._attend, response_serializer=LeadMessage.SerializeToString
                        )
                    },
                ),
            )
        )
        self.port = self._server.add_insecure_port(address)

    def open(self) -> None:
        """Starts to answer."""
        self._server.start()
        for service in ("", *SERVICES):
            self._health.set(service, health_pb2.HealthCheckResponse.SERVING)

    def close(self, grace_s: float = 2.0) -> None:
        """Sends what waits, and ends all streams."""
        self._health.enter_graceful_shutdown()
        for outboxes in (self.parameters, self.replies, self.orders):
            for outbox in outboxes.values():
                outbox.close()
        self._server.stop(grace_s).wait()

    # Push

    def _push(self, messages: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[pb.PushReply]:
        outside = OutsidePushes(self._expected)
        for message in messages:
            try:
                header, data = self._let_in(message)
                if header.sender:
                    self._part(header, data)
                    yield from self._host(header.sender - 1, messages, context)
                    return
                whole = outside.add(header, data)
            except ProtocolError as error:
                _refuse(context, refusal_of(error))
            if whole is not None:
                yield self._answer(whole, context)

    def _let_in(self, message: bytes) -> tuple[pb.BlockHeader, memoryview]:
        """A block of a gradient. ProtocolError, or RefusedError with the status, where it may not come in."""
        header, data = unpack_block(message)
        refusal = check_push(header, data.nbytes, self._expected)
        if refusal is not None:
            raise RefusedError(refusal)
        return header, data

    def _host(self, host: int, messages: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[pb.PushReply]:
        """The stream of a host of the job: heard in a thread of its own, since answers come whenever they come."""
        outbox = self.replies.get(host)
        if outbox is None:
            _refuse(context, Refusal(grpc.StatusCode.INVALID_ARGUMENT, f"sender: expected another host; found {host}"))
        context.add_callback(outbox.drop)

        def hear() -> None:
            try:
                for message in messages:
                    self._part(*self._let_in(message))
                lost = "it closed the stream (push)"
            except ProtocolError as error:
                refusal = refusal_of(error)
                outbox.put((), lambda: refusal)
                lost = refusal.details
            except Exception as error:  # gRPC raises a bare Exception where the stream breaks
                lost = f"{error or 'its connection broke'} (push)"
            self._behind.post(Lost(host, lost))
            outbox.close()

        threading.Thread(target=hear, daemon=True, name=f"thalweg-pushes-{host}").start()
        for reply in outbox:
            if isinstance(reply, Refusal):
                _refuse(context, reply)
            yield reply

    def _part(self, header: pb.BlockHeader, data: memoryview) -> None:
        """A block of a gradient from a host of the job."""
        index = self._expected.shards.index(header.begin, header.end)
        assert index is not None  # checked
        host, parts = header.sender - 1, (header.part_begin, header.part_end)
        gradient = self._behind.room_for_part(host, header.step, parts, index)
        self._expected.gradients.decode(data, gradient)
        self._behind.post(PartArrived(host, header.step, header.version, parts, index, gradient))

    def _answer(self, push: OutsidePush, context: grpc.ServicerContext) -> pb.PushReply:
        self._behind.post(push)
        try:
            verdict, refused = push.verdict.result(ANSWER_S)
        except futures.TimeoutError:
            context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, f"the server did not answer within {ANSWER_S:.0f} s")
        if refused:
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, refused)
        version = self._behind.status().version
        return pb.PushReply(
            result=_RESULTS[verdict],
            step=push.step,
            part_begin=push.parts[0],
            part_end=push.parts[1],
            version=version,
        )

    # Pull

    def _pull(self, message: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        request = _parsed(pb.PullRequest, message, context)
        expected = self._expected
        refusal = check_names(request.protocol_version, request.job_id, request.generation, expected)
        if refusal is not None:
            _refuse(context, refusal)
        if not request.follow:
            return self._newest(context)
        outbox = self.parameters.get(request.host)
        if outbox is None:
            found = f"host: expected another host of the job, 0 to {expected.hosts - 1}; found {request.host}"
            _refuse(context, Refusal(grpc.StatusCode.INVALID_ARGUMENT, found))
        context.add_callback(outbox.drop)
        context.send_initial_metadata(())
        return iter(outbox)

    def _newest(self, context: grpc.ServicerContext) -> Iterator[bytes]:
        try:
            version, parameters = self._behind.snapshot()
        except ProtocolError as error:
            context.abort(grpc.StatusCode.UNAVAILABLE, str(error))
        expected, begin = self._expected, self._expected.shards.bounds[self._expected.host][0]
        exact = make_format("float32")
        for index in expected.shards.owned_by(expected.host):
            block = expected.shards.blocks[index]
            header = pb.BlockHeader(
                protocol_version=PROTOCOL_VERSION,
                job_id=expected.job_id,
                generation=expected.generation,
                step=version,
                begin=block.begin,
                end=block.end,
                format=pb.FLOAT32,
                sender=1 + expected.host,
            )
            yield pack_block(header, [exact.encode(parameters[block.begin - begin : block.end - begin], None)])

    # Status, Attend

    def _status(self, message: bytes, context: grpc.ServicerContext) -> pb.StatusReply:
        request = _parsed(pb.StatusRequest, message, context)
        if request.protocol_version != PROTOCOL_VERSION:
            details = f"protocol_version: expected {PROTOCOL_VERSION}; found {request.protocol_version}"
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, details)
        return self._behind.status()

    def _attend(self, messages: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[LeadMessage]:
        expected = self._expected
        joined = _parsed(HostMessage, next(messages, b""), context).joined
        refusal = check_names(joined.protocol_version, joined.job_id, joined.generation, expected)
        if refusal is not None:
            _refuse(context, refusal)
        outbox = self.orders.get(joined.host)
        if expected.host or outbox is None:
            details = f"host: expected one of 1 to {expected.hosts - 1} at the lead, host 0; found {joined.host}"
            _refuse(context, Refusal(grpc.StatusCode.INVALID_ARGUMENT, details))
        context.add_callback(outbox.drop)

        def hear() -> None:
            try:
                for message in messages:
                    self._behind.post(HostSaid(joined.host, HostMessage.FromString(message)))
                ended = "it closed its connection"
            except Exception as error:  # gRPC raises a bare Exception where the stream breaks
                ended = str(error) or "its connection broke"
            self._behind.post(Lost(joined.host, ended))
            outbox.close()

        context.send_initial_metadata(())
        threading.Thread(target=hear, daemon=True, name=f"thalweg-host-{joined.host}").start()
        return iter(outbox)


def _parsed(kind: type[M], message: bytes, context: grpc.ServicerContext) -> M:
    try:
        return kind.FromString(message)
    except DecodeError as error:
        found = f"expected a {kind.__name__}; found {len(message)} bytes that are none: {error}"
        _refuse(context, Refusal(grpc.StatusCode.INVALID_ARGUMENT, found))


def _refuse(context: grpc.ServicerContext, refusal: Refusal) -> NoReturn:
    context.abort(refusal.status, refusal.details)
    raise AssertionError("abort returned")
