"""The streams from one host's server to the others: gradients to their owners, parameters from them, words to the lead.

Rules:
  - One channel for each peer, opened in the process that uses it; its streams last as long as the run.
  - Keepalive pings tell a peer that hangs from one that is slow; they are no closer together than its door allows.
  - Whatever ends a stream before `close` is posted as a Lost: the one who decides words the error.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import chain
from typing import Any, TypeVar

import grpc

from thalweg_cluster.hosts.answering import Behind, parsed
from thalweg_cluster.hosts.callers import FETCHES_MAX, HOST_KEY
from thalweg_cluster.hosts.checks import FORMAT_NAMES, Expected, check_parameters, refusal_of
from thalweg_cluster.hosts.events import Answered, LeadSaid, Lost, ParametersArrived, Refreshed
from thalweg_cluster.hosts.hosts_door import SERVICES
from thalweg_cluster.hosts.listener import TRANSPORT, channel_credentials, keepalive
from thalweg_cluster.hosts.numbering import ASKED_MAX
from thalweg_cluster.hosts.planned import heard, sent, step_of_block, step_of_nothing, step_of_reply, step_of_word
from thalweg_cluster.hosts.streams import Inbox, Outbox
from thalweg_cluster.security.run import RunSecurity
from thalweg_cluster.security.tokens import bearer
from thalweg_cluster.server.telemetry import WireCounts
from thalweg_proto.errors import ProtocolError, ServerError, SpoiltError
from thalweg_proto.faults import NO_FAULTS, Faults
from thalweg_proto.formats import make_format
from thalweg_proto.messages import PROTOCOL_VERSION
from thalweg_proto.v1 import parameter_server_pb2 as pb
from thalweg_proto.v1.coordination_pb2 import HostMessage, LeadMessage
from thalweg_proto.wire import sealed_number, unpack_block

Request = TypeVar("Request", pb.PullRequest, pb.FollowRequest, HostMessage.Joined)

RUN_S = 30 * 24 * 3600.0
"""The deadline of the streams that last as long as the run."""
FETCH_S = 120.0
"""How long an owner may take to send its shard once."""
LEAVE_S = 2.0
"""How long the lead may take to hear the last word of a host."""
_OPTIONS = [
    *TRANSPORT,
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_http_proxy", 0),
]


class Peers:
    """The client side of one host.

    gradients: what waits to be pushed to each owner, by host
    to_lead:   what waits to be told to the lead; None where this host is the lead
    """

    def __init__(
        self,
        expected: Expected,
        behind: Behind,
        *,
        connect_s: float,
        patience_s: float,
        security: RunSecurity,
        wire: WireCounts | None = None,
        faults: Faults = NO_FAULTS,
    ) -> None:
        """`connect_s`, `patience_s`, `security`: as in ServedSpec; `wire` counts what comes, `faults` are planned."""
        self._faults = faults
        self._wire = wire or WireCounts()
        self._tls = security.tls
        self._options = [*_OPTIONS, *keepalive(patience_s)]
        self._connect_s = connect_s
        self._expected = expected
        self._behind = behind
        self._channels: list[grpc.Channel] = []
        self._pull: dict[int, Callable[..., Any]] = {}  # by owner
        self._fetching = ThreadPoolExecutor(FETCHES_MAX, thread_name_prefix="thalweg-fetch")
        self._me = ((HOST_KEY, str(expected.host)), bearer(security.token))  # metadata of the calls
        self._closed = False
        self._listening: list[threading.Thread] = []
        self._attending: threading.Thread | None = None  # hears the lead
        others = [host for host in range(expected.hosts) if host != expected.host]
        owners = [host for host in others if expected.shards.owned_by(host)]
        self.gradients: Mapping[int, Outbox] = {host: Outbox() for host in owners}
        self.to_lead: Outbox | None = Outbox() if expected.host else None
        # What is said to each owner of how far its parameters have come.
        self._following: Mapping[int, Outbox] = {host: Outbox() for host in owners}

    def connect(self, addresses: Sequence[str]) -> None:
        """Opens the streams to the servers at `addresses`, by host.

        Raises ServerError where one does not answer or is another one, with both addresses.
        """
        expected = self._expected
        channels = {host: self._channel(address) for host, address in enumerate(addresses) if host != expected.host}
        self._channels = list(channels.values())
        if self.to_lead is not None:
            # First, so that the lead can be told of what fails after.
            self._try({0: channels[0]}, addresses)
            self._attending = self._open_attend(channels[0], self.to_lead)
        self._try({host: channel for host, channel in channels.items() if host}, addresses)
        for host in self.gradients:
            self._open_push(host, channels[host])
            self._open_follow(host, channels[host])

    def _channel(self, address: str) -> grpc.Channel:
        if self._tls is None:
            return grpc.insecure_channel(address, options=self._options)
        return grpc.secure_channel(address, channel_credentials(self._tls), options=self._options)

    def _try(self, channels: Mapping[int, grpc.Channel], addresses: Sequence[str]) -> None:
        """Asks each peer for its status, all at the same time. ServerError names all that are wrong."""
        request = pb.StatusRequest(protocol_version=PROTOCOL_VERSION)
        calls = {
            host: channel.unary_unary(
                f"/{SERVICES[0]}/Status",
                request_serializer=pb.StatusRequest.SerializeToString,
                response_deserializer=pb.StatusReply.FromString,
            ).future(request, timeout=self._connect_s, wait_for_ready=True, metadata=self._me)
            for host, channel in channels.items()
        }
        own = f"host {self._expected.host} at {addresses[self._expected.host]}"
        found = [self._found(f"host {host} at {addresses[host]}", host, call) for host, call in calls.items()]
        wrong = [f"{own} {each}" for each in found if each]
        if wrong:
            raise ServerError("\n".join(wrong))

    def _found(self, peer: str, host: int, call: Any) -> str:
        """What is wrong with a peer that was asked for its status; "": nothing."""
        expected = self._expected
        try:
            status = call.result()
        except grpc.RpcError as error:
            if error.code() not in (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE):
                return f"is not let in by {peer}: {error.code().name}: {error.details()}"
            return (
                f"cannot reach {peer}: no answer within {self._connect_s:g} s. Is there a firewall between them? The "
                f"hosts of a run reach each other on TCP ports that the system chooses."
            )
        if status.job_id != expected.job_id:
            return f"reached another job at {peer}: expected {expected.job_id!r}; found {status.job_id!r}"
        if status.host != host:
            return f"reached another host of the job at {peer}: expected {host}; found {status.host}"
        return ""

    def beat(self) -> None:
        """Asks all hosts what they have of what was sent to them, where that is not known."""
        for outbox in self._outboxes:
            outbox.beat()

    @property
    def _outboxes(self) -> list[Outbox]:
        lead = [] if self.to_lead is None else [self.to_lead]
        return [*self.gradients.values(), *self._following.values(), *lead]

    def _open_push(self, host: int, channel: grpc.Channel) -> None:
        push: Any = channel.stream_stream(f"/{SERVICES[0]}/Push")
        blocks = sent(self._faults, "rpc.push.request", self.gradients[host], step_of_block)
        call = push(blocks, timeout=RUN_S, metadata=self._me)
        call.initial_metadata()  # waits until the owner has taken note

        def take(message: bytes) -> None:
            reply = parsed(pb.PushReply, message)
            self._behind.post(Answered(host, reply.step, reply.part_begin))

        hear = self._in_order(self.gradients[host], take)
        self._listen(host, call, heard(self._faults, "rpc.push.reply", hear, step_of_reply), "push")

    def _open_follow(self, host: int, channel: grpc.Channel) -> None:
        self._pull[host] = channel.unary_stream(f"/{SERVICES[0]}/Pull")
        follow: Any = channel.stream_stream(f"/{SERVICES[0]}/Follow")
        said = sent(self._faults, "rpc.follow.request", self._following[host], step_of_nothing)
        call = follow(chain([self._names(pb.FollowRequest)], said), timeout=RUN_S, metadata=self._me)
        call.initial_metadata()  # waits until the owner has taken note

        def take(message: bytes) -> None:
            self._behind.post(self._received(host, message))

        hear = self._in_order(self._following[host], take)
        self._listen(host, call, heard(self._faults, "rpc.follow.reply", hear, step_of_block), "follow")

    def _in_order(self, back: Outbox, take: Callable[[bytes], object]) -> Callable[[bytes], None]:
        """Hears a message of a stream whose other direction is `back`."""
        inbox = Inbox(back, self._wire.add)

        def hear(message: bytes) -> None:
            if inbox.takes(message):
                take(message)

        return hear

    def refresh(self, rank: int) -> None:
        """Fetches the newest parameters of all other owners; a Refreshed follows."""

        def fetch() -> None:
            for owner in self.gradients:
                lost = self._fetch(owner)
                if lost:
                    self._lost(owner, lost)
                    return
            self._behind.post(Refreshed(rank))

        self._fetching.submit(fetch)

    def _fetch(self, owner: int) -> str:
        """Fetches the newest parameters of one owner, and once more where not all came whole; what broke it, or ""."""
        for _ in range(ASKED_MAX):
            missing = set(range(1, 1 + len(self._expected.shards.owned_by(owner))))

            def hear(message: bytes, missing: set[int] = missing) -> None:
                try:
                    number = sealed_number(message)
                except SpoiltError:
                    self._wire.add("messages_spoilt", 1)
                    return
                self._wire.add("messages_repeated", number not in missing)
                if number in missing:
                    missing.remove(number)
                    self._received(owner, message)

            call = self._pull[owner](self._names(pb.PullRequest), timeout=FETCH_S, metadata=self._me)
            lost = self._read(call, heard(self._faults, "rpc.pull.reply", hear, step_of_block), "pull")
            if lost or not missing:
                return lost
            self._wire.add("messages_missing", len(missing))
        return f"fetched {ASKED_MAX} times, and blocks number {sorted(missing)} did not come whole (pull)"

    def _names(self, kind: type[Request]) -> bytes:
        """What opens a call."""
        expected = self._expected
        return kind(
            protocol_version=PROTOCOL_VERSION, job_id=expected.job_id, generation=expected.generation
        ).SerializeToString()

    def _received(self, owner: int, message: bytes) -> ParametersArrived:
        """Puts a block of parameters where it belongs."""
        header, data = unpack_block(message, checked=True)
        refusal = check_parameters(header, data.nbytes, owner, self._expected)
        if refusal is not None:
            raise ProtocolError(refusal.details)
        index = self._expected.shards.index(header.begin, header.end)
        assert index is not None  # checked
        room = self._behind.room_for_parameters(header.step, index)
        make_format(FORMAT_NAMES[header.format]).decode(data, room)
        self._wire.add("parameters_received", len(message))
        return ParametersArrived(header.step, index)

    def _open_attend(self, channel: grpc.Channel, words: Outbox) -> threading.Thread:
        attend: Any = channel.stream_stream(f"/{SERVICES[1]}/Attend")
        joined = HostMessage(joined=HostMessage.Joined.FromString(self._names(HostMessage.Joined)))
        said = sent(self._faults, "rpc.attend.request", words, partial(step_of_word, HostMessage))
        call = attend(chain([joined.SerializeToString()], said), timeout=RUN_S, metadata=self._me)
        call.initial_metadata()

        def take(message: bytes) -> None:
            self._behind.post(LeadSaid(parsed(LeadMessage, message)))

        hear = self._in_order(words, take)
        step_of = partial(step_of_word, LeadMessage)
        return self._listen(0, call, heard(self._faults, "rpc.attend.reply", hear, step_of), "the lead")

    def _listen(self, host: int, call: Any, hear: Callable[[Any], object], what: str) -> threading.Thread:
        """Reads what comes on a stream from `host`, in a thread of its own, to its end."""

        def listen() -> None:
            self._lost(host, self._read(call, hear, what) or f"it closed the stream ({what})")

        thread = threading.Thread(target=listen, daemon=True, name=f"thalweg-{what}-{host}")
        thread.start()
        self._listening.append(thread)
        return thread

    def _read(self, call: Any, hear: Callable[[Any], object], what: str) -> str:
        """Hears all that comes on a stream; what broke it, or "".

        Whatever is raised is told: else nobody would know that this stream is not read any more.
        """
        try:
            for message in call:
                hear(message)
        except grpc.RpcError as error:
            return f"{error.code().name} ({what}): {error.details()}"
        except Exception as error:
            call.cancel()
            name = refusal_of(error).status.name if isinstance(error, ProtocolError) else type(error).__name__
            return f"{name} ({what}): {error}"
        return ""

    def _lost(self, host: int, why: str) -> None:
        if not self._closed:
            self._behind.post(Lost(host, why))

    def take_leave(self) -> None:
        """Lets the lead hear to the end what it was told."""
        if self.to_lead is not None and self._attending is not None:
            self._closed = True
            self.to_lead.close()
            self._attending.join(LEAVE_S)

    def close(self) -> None:
        """Ends all streams; what waits to be sent is dropped."""
        self._closed = True
        for outbox in self._outboxes:
            outbox.drop()
        for channel in self._channels:
            channel.close()
        for thread in self._listening:
            thread.join()
        self._fetching.shutdown(cancel_futures=True)
