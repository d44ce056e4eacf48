"""The gRPC server of one host: Push, Pull and Status for everybody, Attend for the hosts of the job; and Health.

Rules:
  - Tensor bytes are received into place: a message comes in as raw bytes, its header is checked (checks.py), then its
    data is decoded to where it belongs. Nothing is decoded that is not expected.
  - Nothing is decided here: what came in is posted to the thread that decides, as an event.
  - Whatever bytes come in, the server stays up: the stream ends with a status that names the field.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent import futures
from functools import partial
from typing import Any, NoReturn, Protocol, TypeVar

import grpc
import numpy as np
from google.protobuf.message import DecodeError, Message
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from numpy.typing import NDArray

from thalweg_cluster.consistency.verdict import Verdict
from thalweg_cluster.hosts.callers import Callers
from thalweg_cluster.hosts.checks import (
    FORMAT_NUMBERS,
    Expected,
    Refusal,
    RefusedError,
    check_names,
    check_push,
    check_version,
    refusal_of,
)
from thalweg_cluster.hosts.events import Event, HostSaid, Lost, OutsidePush, PartArrived
from thalweg_cluster.hosts.outside import OutsidePushes
from thalweg_cluster.hosts.streams import Outbox
from thalweg_cluster.server.telemetry import WireBytes
from thalweg_proto.blocks import BLOCK_ELEMENTS_MAX
from thalweg_proto.errors import ProtocolError
from thalweg_proto.formats import make_format
from thalweg_proto.shared_memory import FLOAT_BYTES
from thalweg_proto.v1 import parameter_server_pb2 as pb
from thalweg_proto.v1.coordination_pb2 import HostMessage, LeadMessage
from thalweg_proto.wire import HEADER_BYTES_MAX, unpack_block

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
PATIENCE_S = 30.0
DETAILS_MAX = 500
"""Characters of a status: it travels in a header, of which gRPC takes 8 KiB."""
ANSWER_S = 60.0
"""How long the server may take to answer a push from outside."""
_RESULTS = {Verdict.ACCEPTED: pb.ACCEPTED, Verdict.DUPLICATE: pb.DUPLICATE, Verdict.LATE: pb.LATE}

M = TypeVar("M", bound=Message)
R = TypeVar("R")
T = TypeVar("T")


def keepalive(patience_s: float) -> list[tuple[str, int]]:
    """Options of a connection that is given up when the other end says nothing for about `patience_s`: one ping after
    two thirds of it, and the rest for the answer. So who hangs is told from who has nothing to say.

    gRPC pings for its own reasons, too, and waits a minute for the answer to such a ping, and for that before it sends
    one of ours; `ping_timeout_ms` bounds that.
    """
    third_ms = int(1e3 * patience_s / 3)
    return [
        ("grpc.keepalive_time_ms", 2 * third_ms),
        ("grpc.keepalive_timeout_ms", third_ms),
        ("grpc.http2.ping_timeout_ms", third_ms),
        ("grpc.http2.max_pings_without_data", 0),
    ]


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

    def newest(self, index: int) -> tuple[int, NDArray[np.float32]]:
        """The newest whole version and what is newest of one block of the shard, a copy: that version or later."""
        ...

    def status(self) -> pb.StatusReply: ...


class GrpcDoor:
    """Listens on one address for the life of a run.

    parameters: what waits to be sent to each other host in answer to its Pull with `follow`, by host
    replies:    what waits to be answered to each other host's Push, by host
    orders:     what the lead tells each other host, by host
    """

    def __init__(
        self,
        address: str,
        expected: Expected,
        behind: Behind,
        *,
        patience_s: float = PATIENCE_S,
        wire: WireBytes | None = None,
    ) -> None:
        """Binds `address` ("10.0.0.3:0": a free port). RuntimeError where that fails.

        patience_s: after so long a client that hangs is given up; pings of its own are to be a third of it apart
        wire:       counts what comes from other hosts, and goes to them
        """
        self._wire = wire or WireBytes()
        self._expected = expected
        self._behind = behind
        others = [host for host in range(expected.hosts) if host != expected.host]
        self.parameters: Mapping[int, Outbox[bytes]] = {host: Outbox() for host in others}
        self.replies: Mapping[int, Outbox[pb.PushReply]] = {host: Outbox() for host in others}
        self.orders: Mapping[int, Outbox[LeadMessage]] = {host: Outbox() for host in others}
        self._lock = threading.Lock()  # guards what follows
        self._unanswered: set[futures.Future[Verdict]] = set()  # pushes from outside
        self._closed = False
        self._hearing: list[threading.Thread] = []
        self._callers = Callers(expected.host, expected.hosts)
        self._pool = futures.ThreadPoolExecutor(self._callers.calls_max, thread_name_prefix="thalweg-door")
        self._server = grpc.server(
            self._pool,
            maximum_concurrent_rpcs=self._callers.calls_max,
            options=[
                *TRANSPORT,
                *keepalive(patience_s),
                ("grpc.http2.min_ping_interval_without_data_ms", int(1e3 * patience_s / 3)),
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
                            _stream(self._push), response_serializer=pb.PushReply.SerializeToString
                        ),
                        "Pull": grpc.unary_stream_rpc_method_handler(_stream(self._pull)),
                        "Status": grpc.unary_unary_rpc_method_handler(
                            _unary(self._status), response_serializer=pb.StatusReply.SerializeToString
                        ),
                    },
                ),
                grpc.method_handlers_generic_handler(
                    SERVICES[1],
                    {
                        "Attend": grpc.stream_stream_rpc_method_handler(
                            _stream(self._attend), response_serializer=LeadMessage.SerializeToString
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
        with self._lock:
            self._closed = True
            for verdict in self._unanswered:
                if not verdict.cancel() and not verdict.done():  # what was being done about it ended the run
                    verdict.set_exception(_ended())
        for outboxes in (self.parameters, self.replies, self.orders):
            for outbox in outboxes.values():
                outbox.close()
        self._server.stop(grace_s).wait()
        for thread in self._hearing:
            thread.join()
        self._pool.shutdown()

    # Push

    def _push(self, messages: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[pb.PushReply]:
        host = self._callers.host_of(context)
        if host is not None:
            self._callers.take(host, "Push")
            yield from self._host(host, messages, context)
            return
        with self._callers.outside(context):
            context.send_initial_metadata(())
            pushes = OutsidePushes(self._expected)
            if not context.add_callback(pushes.drop):
                return
            for message in messages:
                whole = pushes.add(*self._let_in(message, 0))
                if whole is not None:
                    yield self._answer(whole)
            pushes.end()

    def _let_in(self, message: bytes, sender: int) -> tuple[pb.BlockHeader, memoryview]:
        """A block of a gradient. ProtocolError, or RefusedError with the status, where it may not come in."""
        header, data = unpack_block(message)
        if header.sender != sender:
            raise ProtocolError(f"sender: expected {sender}; found {header.sender}")
        _check(check_push(header, data.nbytes, self._expected))
        return header, data

    def _host(self, host: int, messages: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[pb.PushReply]:
        """The stream of a host of the job: heard in a thread of its own, since answers come whenever they come."""
        outbox = self.replies[host]
        _drop_with(context, outbox)

        def hear() -> None:
            try:
                for message in messages:
                    self._part(*self._let_in(message, 1 + host))
                    self._wire.add("gradients_received", len(message))
                lost = "it closed the stream (push)"
            except ProtocolError as error:
                outbox.put((), partial(_raise, error))
                lost = str(error)
            except Exception as error:  # gRPC raises a bare Exception where the stream breaks
                lost = f"{error or 'its connection broke'} (push)"
            self._behind.post(Lost(host, lost))
            outbox.close()

        context.send_initial_metadata(())
        self._hear(hear, f"thalweg-pushes-{host}")
        yield from outbox

    def _part(self, header: pb.BlockHeader, data: memoryview) -> None:
        """A block of a gradient from a host of the job."""
        index = self._expected.shards.index(header.begin, header.end)
        assert index is not None  # checked
        host, parts = header.sender - 1, (header.part_begin, header.part_end)
        gradient = self._behind.room_for_part(host, header.step, parts, index)
        self._expected.gradients.decode(data, gradient)
        self._behind.post(PartArrived(host, header.step, header.version, parts, index, gradient))

    def _answer(self, push: OutsidePush) -> pb.PushReply:
        """What became of a push."""
        verdict = push.verdict
        with self._lock:
            if self._closed:
                raise _ended()
            self._unanswered.add(verdict)
        self._behind.post(push)
        try:
            result = verdict.result(ANSWER_S)
        except futures.TimeoutError as error:
            verdict.cancel()
            details = f"the server did not answer within {ANSWER_S:.0f} s"
            raise RefusedError(Refusal(grpc.StatusCode.DEADLINE_EXCEEDED, details)) from error
        except futures.CancelledError as error:  # by `close`; or the client is gone, and hears nothing
            raise _ended() from error
        finally:
            with self._lock:
                self._unanswered.discard(verdict)
        begin, end = push.parts
        version = self._behind.status().version
        return pb.PushReply(result=_RESULTS[result], step=push.step, part_begin=begin, part_end=end, version=version)

    # Pull

    def _pull(self, message: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        request = _parsed(pb.PullRequest, message)
        _check(check_names(request.protocol_version, request.job_id, request.generation, self._expected))
        if request.follow:
            host = self._callers.host(context)
            self._callers.take(host, "Pull")
            outbox = self.parameters[host]
            _drop_with(context, outbox)
            context.send_initial_metadata(())
            yield from outbox
        elif self._callers.host_of(context) is not None:
            yield from self._for_host()
        else:
            with self._callers.outside(context):
                yield from self._for_anybody()

    def _for_host(self) -> Iterator[bytes]:
        """A block at a time, as its turn to be sent comes, in the job's format: blocks may be of different age."""
        expected, form = self._expected, self._expected.parameters
        for index in expected.shards.owned_by(expected.host):
            version, block = self._behind.newest(index)
            number = FORMAT_NUMBERS[form.name]
            message = expected.pack(index, form.encode(block, None), step=version, format=number)
            self._wire.add("parameters_sent", len(message))
            yield message

    def _for_anybody(self) -> Iterator[bytes]:
        """One version, exactly."""
        try:
            version, parameters = self._behind.snapshot()
        except ProtocolError as error:
            raise RefusedError(Refusal(grpc.StatusCode.UNAVAILABLE, str(error))) from error
        expected, first = self._expected, self._expected.shards.bounds[self._expected.host][0]
        exact = make_format("float32")
        for index in expected.shards.owned_by(expected.host):
            begin, end, _ = expected.shards.blocks[index]
            data = exact.encode(parameters[begin - first : end - first], None)
            yield expected.pack(index, data, step=version, format=pb.FLOAT32)

    def _hear(self, hear: Callable[[], None], name: str) -> None:
        """Starts a thread that ends with the stream it hears."""
        thread = threading.Thread(target=hear, daemon=True, name=name)
        with self._lock:
            self._hearing.append(thread)
        thread.start()

    # Status, Attend

    def _status(self, message: bytes, context: grpc.ServicerContext) -> pb.StatusReply:
        _check(check_version(_parsed(pb.StatusRequest, message).protocol_version))
        return self._behind.status()

    def _attend(self, messages: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[LeadMessage]:
        joined = _parsed(HostMessage, next(messages, b"")).joined
        _check(check_names(joined.protocol_version, joined.job_id, joined.generation, self._expected))
        host = self._callers.host(context)
        if self._expected.host:
            raise ProtocolError(f"expected a call of the lead, host 0; found one of host {self._expected.host}")
        self._callers.take(host, "Attend")
        outbox = self.orders[host]
        _drop_with(context, outbox)

        def hear() -> None:
            try:
                for message in messages:
                    self._behind.post(HostSaid(host, _parsed(HostMessage, message)))
                lost = "it closed its connection"
            except ProtocolError as error:
                outbox.put((), partial(_raise, error))
                lost = str(error)
            except Exception as error:  # gRPC raises a bare Exception where the stream breaks
                lost = str(error) or "its connection broke"
            self._behind.post(Lost(host, lost))
            outbox.close()

        context.send_initial_metadata(())
        self._hear(hear, f"thalweg-host-{host}")
        yield from outbox


def _unary(answer: Callable[[R, grpc.ServicerContext], T]) -> Callable[[R, grpc.ServicerContext], T]:
    """What `answer` does, and where it raises ProtocolError, the status that says so."""

    def behave(request: R, context: grpc.ServicerContext) -> T:
        try:
            return answer(request, context)
        except ProtocolError as error:
            _refuse(context, error)

    return behave


def _stream(
    answer: Callable[[R, grpc.ServicerContext], Iterator[T]],
) -> Callable[[R, grpc.ServicerContext], Iterator[T]]:
    """The same for a method that answers with a stream."""

    def behave(request: R, context: grpc.ServicerContext) -> Iterator[T]:
        try:
            yield from answer(request, context)
        except ProtocolError as error:
            _refuse(context, error)

    return behave


def _refuse(context: grpc.ServicerContext, error: ProtocolError) -> NoReturn:
    status, details = refusal_of(error)
    if len(details) > DETAILS_MAX:  # it quotes what came in
        details = f"{details[:DETAILS_MAX]}..."
    context.abort(status, details)
    raise AssertionError("abort returned")


def _ended() -> RefusedError:
    return RefusedError(Refusal(grpc.StatusCode.UNAVAILABLE, "the run has ended"))


def _check(refusal: Refusal | None) -> None:
    if refusal is not None:
        raise RefusedError(refusal)


def _raise(error: Exception) -> NoReturn:
    raise error


def _drop_with(context: grpc.ServicerContext, outbox: Outbox[Any]) -> None:
    """Nothing is sent any more once the call has ended, on whichever side."""
    if not context.add_callback(outbox.drop):  # it has ended already
        outbox.drop()


def _parsed(kind: type[M], message: bytes) -> M:
    try:
        return kind.FromString(message)
    except DecodeError as error:
        found = f"{len(message)} bytes that are none: {error}"
        raise ProtocolError(f"expected a {kind.__name__}; found {found}") from error
