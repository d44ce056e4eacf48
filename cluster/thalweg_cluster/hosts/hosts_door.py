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
from thalweg_cluster.hosts.streams import Inbox, Outbox
from thalweg_cluster.security.guard import Guard
from thalweg_cluster.server.telemetry import WireCounts
from thalweg_proto.errors import ProtocolError
from thalweg_proto.v1 import parameter_server_pb2 as pb
from thalweg_proto.v1.coordination_pb2 import HostMessage
from thalweg_proto.wire import seal

SERVICES = ("thalweg.v1.ParameterServer", "thalweg.v1.Coordination")
GRACE_S = 2.0


class HostsDoor:
    """Listens on one address for the life of a run; where the job has one host, nobody would call, and it does not.

    port:       that it listens on; 0: it does not listen
    parameters: what waits to be sent to each other host in answer to its Follow, by host
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
        wire: WireCounts | None = None,
    ) -> None:
        """Binds a free port of `bind`; raises what `Listener` does. `wire` counts what comes and goes."""
        self._wire = wire or WireCounts()
        self._expected = expected
        self._behind = behind
        others = [host for host in range(expected.hosts) if host != expected.host]
        self.parameters: Mapping[int, Outbox] = {host: Outbox() for host in others}
        self.replies: Mapping[int, Outbox] = {host: Outbox() for host in others}
        self.orders: Mapping[int, Outbox] = {host: Outbox() for host in others}
        self._lock = threading.Lock()  # guards what follows
        self._hearing: list[threading.Thread] = []
        self._callers = Hosts(expected.host, expected.hosts)
        push: grpc.RpcMethodHandler[Any, Any] = grpc.stream_stream_rpc_method_handler(stream(self._push))
        pull: grpc.RpcMethodHandler[Any, Any] = grpc.unary_stream_rpc_method_handler(stream(self._pull))
        follow: grpc.RpcMethodHandler[Any, Any] = grpc.stream_stream_rpc_method_handler(stream(self._follow))
        attend: grpc.RpcMethodHandler[Any, Any] = grpc.stream_stream_rpc_method_handler(stream(self._attend))
        self._listener = (
            Listener(
                bind,
                guard,
                {
                    SERVICES[0]: {"Push": push, "Pull": pull, "Follow": follow, "Status": status_handler(behind)},
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

    def beat(self) -> None:
        """Asks all hosts what they have of what was sent to them, where that is not known."""
        for outboxes in (self.parameters, self.replies, self.orders):
            for outbox in outboxes.values():
                outbox.beat()

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

    def _push(self, messages: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        host = self._callers.host(context)
        self._callers.take(host, "Push")

        def take(message: bytes) -> None:
            self._part(*let_in(message, 1 + host, self._expected, checked=True))
            self._wire.add("gradients_received", len(message))

        return self._stream(host, messages, context, self.replies[host], take, "push")

    def _part(self, header: pb.BlockHeader, data: memoryview) -> None:
        """A block of a gradient from a host of the job."""
        index = self._expected.shards.index(header.begin, header.end)
        assert index is not None  # checked
        host, parts = header.sender - 1, (header.part_begin, header.part_end)
        gradient = self._behind.room_for_part(host, header.step, parts, index)
        self._expected.gradients.decode(data, gradient)
        self._behind.post(PartArrived(host, header.step, header.version, parts, index, gradient))

    def _stream(
        self,
        host: int,
        messages: Iterator[bytes],
        context: grpc.ServicerContext,
        outbox: Outbox,
        take: Callable[[bytes], object],
        what: str,
    ) -> Iterator[bytes]:
        """What goes out on a stream of a host's; what comes on it is heard in a thread of its own."""
        inbox = Inbox(outbox, self._wire.add)
        if not context.add_callback(outbox.drop):  # the call has ended already, on whichever side
            outbox.drop()

        def hear() -> None:
            try:
                for message in messages:
                    if inbox.takes(message):
                        take(message)
                lost = f"it closed the stream ({what})"
            except ProtocolError as error:
                outbox.put((), partial(_raise, error))
                lost = str(error)
            except Exception as error:  # gRPC raises a bare Exception where the stream breaks
                lost = f"{str(error) or 'its connection broke'} ({what})"
            if what != "follow":  # else nothing comes that would be missed; and it knows itself why it hears no more
                self._behind.post(Lost(host, lost))
            outbox.close()

        context.send_initial_metadata(())
        thread = threading.Thread(target=hear, daemon=True, name=f"thalweg-{what}-{host}")
        with self._lock:
            self._hearing.append(thread)
        thread.start()
        return outbox

    # Pull, Follow, Attend

    def _pull(self, message: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        request = parsed(pb.PullRequest, message)
        check(check_names(request.protocol_version, request.job_id, request.generation, self._expected))
        self._callers.host(context)
        return self._newest()

    def _newest(self) -> Iterator[bytes]:
        """A block at a time, as its turn to be sent comes, in the job's format: blocks may be of different age."""
        expected, form = self._expected, self._expected.parameters
        for number, index in enumerate(expected.shards.owned_by(expected.host), start=1):
            version, block = self._behind.newest(index)
            parts = expected.pack(index, form.encode(block, None), step=version, format=FORMAT_NUMBERS[form.name])
            message = seal(parts, number)
            self._wire.add("parameters_sent", len(message))
            yield message

    def _follow(self, messages: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        request = parsed(pb.FollowRequest, next(messages, b""))
        check(check_names(request.protocol_version, request.job_id, request.generation, self._expected))
        host = self._callers.host(context)
        self._callers.take(host, "Follow")

        def take(message: bytes) -> None:
            raise ProtocolError(f"expected nothing but how far the stream is; found {len(message)} bytes more")

        return self._stream(host, messages, context, self.parameters[host], take, "follow")

    def _attend(self, messages: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        joined = parsed(HostMessage, next(messages, b"")).joined
        check(check_names(joined.protocol_version, joined.job_id, joined.generation, self._expected))
        host = self._callers.host(context)
        if self._expected.host:
            raise ProtocolError(f"expected a call of the lead, host 0; found one of host {self._expected.host}")
        self._callers.take(host, "Attend")

        def take(message: bytes) -> None:
            self._behind.post(HostSaid(host, parsed(HostMessage, message)))

        return self._stream(host, messages, context, self.orders[host], take, "attend")


def _raise(error: Exception) -> NoReturn:
    raise error
