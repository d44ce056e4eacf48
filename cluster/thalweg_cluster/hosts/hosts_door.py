"""The door for the other hosts of the job: Push, Pull, Status and Attend. Clients have a door of their own.

Rules:
  - Tensor bytes are received into place: a message comes in as raw bytes, its header is checked (checks.py), then its
    data is decoded to where it belongs. Nothing is decoded that is not expected.
  - Nothing is decided here: what came in is posted to the thread that decides, as an event.
  - Whatever bytes come in, the server stays up: the stream ends with a status that names the field.
  - Who is let in has the run's own token, and where there is TLS a certificate of its authority; only then does it
    count which host it says it is.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, NoReturn

import grpc

from thalweg_cluster.hosts.answering import Behind, check, let_in, parsed, status_handler, stream
from thalweg_cluster.hosts.callers import Hosts
from thalweg_cluster.hosts.checks import FORMAT_NUMBERS, Expected, check_names
from thalweg_cluster.hosts.events import HostSaid, Lost, PartArrived
from thalweg_cluster.hosts.listener import PATIENCE_S, Listener
from thalweg_cluster.hosts.streams import Outbox
from thalweg_cluster.security.guard import Guard
from thalweg_cluster.server.telemetry import WireBytes
from thalweg_proto.errors import ProtocolError
from thalweg_proto.v1 import parameter_server_pb2 as pb
from thalweg_proto.v1.coordination_pb2 import HostMessage, LeadMessage

SERVICES = ("thalweg.v1.ParameterServer", "thalweg.v1.Coordination")
GRACE_S = 2.0


class HostsDoor:
    """Listens on one address for the life of a run; where the job has one host, nobody would call, and it does not.

    port:       that it listens on; 0: it does not listen
    parameters: what waits to be sent to each other host in answer to its Pull with `follow`, by host
    replies:    what waits to be answered to each other host's Push, by host
    orders:     what the lead tells each other host, by host
    """

    def __init__(
        self,
        bind: str,
        expected: Expected,
        behind: Behind,
        *,
        guard: Guard,
        patience_s: float = PATIENCE_S,
        wire: WireBytes | None = None,
    ) -> None:
        """Binds a free port of `bind`; raises what `Listener` does. `wire` counts what comes and goes."""
        self._wire = wire or WireBytes()
        self._expected = expected
        self._behind = behind
        others = [host for host in range(expected.hosts) if host != expected.host]
        self.parameters: Mapping[int, Outbox[bytes]] = {host: Outbox() for host in others}
        self.replies: Mapping[int, Outbox[pb.PushReply]] = {host: Outbox() for host in others}
        self.orders: Mapping[int, Outbox[LeadMessage]] = {host: Outbox() for host in others}
        self._lock = threading.Lock()  # guards what follows
        self._hearing: list[threading.Thread] = []
        self._callers = Hosts(expected.host, expected.hosts)
        push: grpc.RpcMethodHandler[Any, Any] = grpc.stream_stream_rpc_method_handler(
            stream(self._push), response_serializer=pb.PushReply.SerializeToString
        )
        pull: grpc.RpcMethodHandler[Any, Any] = grpc.unary_stream_rpc_method_handler(stream(self._pull))
        attend: grpc.RpcMethodHandler[Any, Any] = grpc.stream_stream_rpc_method_handler(
            stream(self._attend), response_serializer=LeadMessage.SerializeToString
        )
        self._listener = (
            Listener(
                bind,
                guard,
                {
                    SERVICES[0]: {"Push": push, "Pull": pull, "Status": status_handler(behind)},
                    SERVICES[1]: {"Attend": attend},
                },
                calls_max=self._callers.calls_max,
                patience_s=patience_s,
                name="thalweg-hosts",
            )
            if others
            else None
        )
        self.port = self._listener.port if self._listener is not None else 0

    def open(self) -> None:
        """Starts to answer."""
        if self._listener is not None:
            self._listener.open()

    def close(self) -> None:
        """Sends what waits, and ends all streams."""
        for outboxes in (self.parameters, self.replies, self.orders):
            for outbox in outboxes.values():
                outbox.close()
        if self._listener is not None:
            self._listener.close(GRACE_S)
            for thread in self._hearing:
                thread.join()
            self._listener.end()

    # Push

    def _push(self, messages: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[pb.PushReply]:
        """Heard in a thread of its own, since answers come whenever they come."""
        host = self._callers.host(context)
        self._callers.take(host, "Push")
        outbox = self.replies[host]
        _drop_with(context, outbox)

        def hear() -> None:
            try:
                for message in messages:
                    self._part(*let_in(message, 1 + host, self._expected))
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

    def _hear(self, hear: Callable[[], None], name: str) -> None:
        """Starts a thread that ends with the stream it hears."""
        thread = threading.Thread(target=hear, daemon=True, name=name)
        with self._lock:
            self._hearing.append(thread)
        thread.start()

    # Pull, Attend

    def _pull(self, message: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        request = parsed(pb.PullRequest, message)
        check(check_names(request.protocol_version, request.job_id, request.generation, self._expected))
        host = self._callers.host(context)
        if not request.follow:
            yield from self._newest()
            return
        self._callers.take(host, "Pull")
        outbox = self.parameters[host]
        _drop_with(context, outbox)
        context.send_initial_metadata(())
        yield from outbox

    def _newest(self) -> Iterator[bytes]:
        """A block at a time, as its turn to be sent comes, in the job's format: blocks may be of different age."""
        expected, form = self._expected, self._expected.parameters
        for index in expected.shards.owned_by(expected.host):
            version, block = self._behind.newest(index)
            number = FORMAT_NUMBERS[form.name]
            message = expected.pack(index, form.encode(block, None), step=version, format=number)
            self._wire.add("parameters_sent", len(message))
            yield message

    def _attend(self, messages: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[LeadMessage]:
        joined = parsed(HostMessage, next(messages, b"")).joined
        check(check_names(joined.protocol_version, joined.job_id, joined.generation, self._expected))
        host = self._callers.host(context)
        if self._expected.host:
            raise ProtocolError(f"expected a call of the lead, host 0; found one of host {self._expected.host}")
        self._callers.take(host, "Attend")
        outbox = self.orders[host]
        _drop_with(context, outbox)

        def hear() -> None:
            try:
                for message in messages:
                    self._behind.post(HostSaid(host, parsed(HostMessage, message)))
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


def _raise(error: Exception) -> NoReturn:
    raise error


def _drop_with(context: grpc.ServicerContext, outbox: Outbox[Any]) -> None:
    """Nothing is sent any more once the call has ended, on whichever side."""
    if not context.add_callback(outbox.drop):  # it has ended already
        outbox.drop()
