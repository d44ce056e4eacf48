"""A worker's connection to the server of its host, over a Unix socket."""

from __future__ import annotations

import contextlib
import os
import socket
from types import TracebackType

from thalweg_proto import descriptors, messages
from thalweg_proto.errors import ProtocolError, ServerError
from thalweg_proto.layout import Layout
from thalweg_proto.v1 import exchange_pb2

REPORT_S = 0.25
"""How old a step may get before the server is told of it: each telling costs the workers' cores some time."""
MEETING_FDS = 6
"""File descriptors that come with a Welcome where the workers meet, and a hand and a permit for each of them."""


class Connection:
    """What worker `rank` says to its server, and hears from it; `join` makes one.

    welcome: what the server told the worker when it joined
    fds:     what it handed over to be mapped; the caller's to close
    """

    def __init__(
        self, rank: int, layout: Layout, sock: socket.socket, welcome: exchange_pb2.Welcome, fds: list[int]
    ) -> None:
        self.rank = rank
        self.layout = layout
        self.welcome = welcome
        self.fds = fds
        self._socket = sock
        self._records: list[bytes] = []
        self._reported_s = 0.0

    def fileno(self) -> int:
        """Of the socket: readable where the server said something, or is gone."""
        return self._socket.fileno()

    def tell(self, record: messages.StepRecord) -> None:
        """Tells the server how a step went: at once, or together with those that follow within REPORT_S."""
        self._records.append(messages.pack_step(record))
        if record.published_s - self._reported_s >= REPORT_S or len(self._records) == messages.RECORDS_MAX:
            self._reported_s = record.published_s
            self._flush()

    def evaluated(self, message: messages.Evaluated) -> None:
        """Hands over the result of one held-out chunk."""
        self._flush()
        self.send(messages.pack_evaluated(message))

    def leave(self) -> None:
        """This worker trains no more, unless it is called again: its last word otherwise."""
        self._flush()
        self.send(messages.pack_left())

    def regrouped(self) -> None:
        """This worker has left the meeting, and waits to be told who meets."""
        self._flush()
        self.send(messages.pack_regrouped())

    def _flush(self) -> None:
        if self._records:
            self.send(b"".join(self._records))
            self._records.clear()

    def receive(self) -> messages.FromServer:
        """Waits for a word of the server. Raises ServerError where it is gone."""
        try:
            record = self._socket.recv(messages.MESSAGE_BYTES_MAX)
        except ConnectionResetError:
            # The server closed while a record of ours was unread. Linux says so first, and only then what it had sent.
            record = self._socket.recv(messages.MESSAGE_BYTES_MAX)
        if not record:
            raise ServerError(f"worker {self.rank}: the server of this host closed the connection")
        return messages.unpack_from_server(record)

    def send(self, record: bytes) -> None:
        """Sends one message."""
        # A server that stops closes its end while this worker may still compute. What it said last is yet to be read:
        # `receive` tells a stop from a server that died.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._socket.send(record)

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> Connection:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, Exception) and not isinstance(error, ServerError):
            self.send(messages.pack_broke())
        self.close()


def join(address: str, *, job_id: str, rank: int, layout: Layout) -> Connection:
    """Joins the server at `address`, the name of an abstract Unix socket.

    Raises ServerError where no server listens there, ProtocolError where it refuses this worker.
    """
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        try:
            connection.connect("\0" + address)
        except OSError as error:
            raise ServerError(f"worker {rank}: no server listens at {address!r} on this host ({error})") from error
        hello = exchange_pb2.Hello(
            protocol_version=messages.PROTOCOL_VERSION,
            job_id=job_id,
            rank=rank,
            layout_sha256=layout.names_sha256,
        )
        try:
            connection.sendall(hello.SerializeToString())
            data, fds = descriptors.receive(
                connection, messages.MESSAGE_BYTES_MAX, lambda data: _fds_of(exchange_pb2.Welcome.FromString(data))
            )
        except ConnectionError as error:
            raise ServerError(f"worker {rank}: the server of this host ended before it let this worker in") from error
        welcome = exchange_pb2.Welcome.FromString(data)
        if welcome.refused or len(fds) != _fds_of(welcome):
            for fd in fds:
                os.close(fd)
            raise ProtocolError(f"worker {rank}: the server refused it: {welcome.refused or 'no answer'}")
        return Connection(rank, layout, connection, welcome, fds)
    except BaseException:
        connection.close()
        raise


def _fds_of(welcome: exchange_pb2.Welcome) -> int:
    """How many descriptors come with it."""
    if welcome.refused:
        return 0
    return MEETING_FDS + 2 * welcome.workers if welcome.meet else 1
