"""The server's end of the exchange on one host: lets the workers in, hears them, wakes them.

Rules:
  - Where the workers meet at a rendezvous, no step passes through here: what comes in is what they tell of their steps,
    many at a time; what goes out is the begin and the stop.
  - The socket is an abstract Unix socket: it has no file, so none is left behind. Only processes of the same user
    (SO_PEERCRED) with the job's id and the server's own idea of the model come in.
  - A worker that joins gets the file descriptors of what the host shares, and maps them.
  - Waiting is a blocking poll; `interrupt` ends it from another thread.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from thalweg_proto import descriptors, messages
from thalweg_proto.errors import ProtocolError
from thalweg_proto.layout import Layout
from thalweg_proto.v1 import exchange_pb2

_CREDENTIALS = struct.Struct("3i")


class Gone(NamedTuple):
    """A worker's connection is closed: its process died, or it has left. Its rank is free again."""

    found: str


class Door:
    """Listens for the workers of one job on this host."""

    def __init__(
        self,
        address: str,
        *,
        job_id: str,
        layout: Layout,
        ranks: range,
        welcome: Callable[[int], exchange_pb2.Welcome],
        fds: Sequence[int],
    ) -> None:
        """Binds the abstract socket `address` and listens.

        ranks:   of the workers of this host
        welcome: what the worker of a rank is told when it joins
        fds:     what it gets to map; the door closes them
        """
        self._job_id = job_id
        self._layout = layout
        self._expected = ranks
        self._welcome = welcome
        self._fds = fds
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.bind("\0" + address)
        self._listener.listen(max(1, len(ranks)))
        self._wake = os.eventfd(0, os.EFD_CLOEXEC)
        self._poll = select.poll()
        self._poll.register(self._listener, select.POLLIN)
        self._poll.register(self._wake, select.POLLIN)
        self._sockets: dict[int, socket.socket] = {}  # by rank
        self._ranks: dict[int, int] = {}  # rank by file descriptor
        self._left: set[int] = set()

    @property
    def full(self) -> bool:
        """Whether every worker has joined."""
        return len(self._sockets) == len(self._expected)

    @property
    def joined(self) -> frozenset[int]:
        """The ranks of the workers that have joined, and are not gone."""
        return frozenset(self._sockets)

    def deserted(self, *, but: Iterable[int] = ()) -> bool:
        """Whether every worker that has joined has left, or is gone; `but` those that nobody waits for."""
        return self._left.issuperset(self._sockets.keys() - set(but))

    def interrupt(self) -> None:
        """Ends the waiting of `receive` now; may be called from any thread."""
        os.eventfd_write(self._wake, 1)

    def receive(self, timeout_s: float | None = None) -> Iterator[tuple[int, bytes | Gone]]:
        """Blocks until something is there, or the timeout; yields (rank, record) of what there is.

        Nothing where workers only joined, or after an `interrupt`.
        """
        ready = {fd for fd, _ in self._poll.poll(None if timeout_s is None else 1e3 * timeout_s)}
        if self._listener.fileno() in ready and not ready & self._ranks.keys():
            # Only where no worker is to be heard: who joins may take the place of one whose last words are here.
            self._admit()
        for fd in ready:
            rank = self._ranks.get(fd)
            if rank is not None:
                yield rank, self._hear(rank)
            elif fd == self._wake:
                os.eventfd_read(self._wake)

    def kill(self, rank: int) -> None:
        """Ends the process of a worker, also one that is stopped (SIGSTOP). It is Gone once it writes nothing more."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._credentials(self._sockets[rank])[0], signal.SIGKILL)

    @staticmethod
    def _credentials(connection: socket.socket) -> tuple[int, int, int]:
        """Process, user and group of the other end."""
        data = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        pid, uid, gid = _CREDENTIALS.unpack(data)
        return pid, uid, gid

    def left(self, rank: int) -> None:
        """The worker said that it leaves: that it closes its connection is no error any more."""
        self._left.add(rank)
        self._poll.unregister(self._sockets[rank])

    def _hear(self, rank: int) -> bytes | Gone:
        connection = self._sockets[rank]
        try:
            record = connection.recv(messages.MESSAGE_BYTES_MAX)
            found = "it closed its connection"
        except OSError as error:
            record, found = b"", str(error)
        if record:
            return record
        self._poll.unregister(connection)
        del self._ranks[connection.fileno()], self._sockets[rank]
        connection.close()
        return Gone(found)

    def send(self, rank: int, record: bytes) -> None:
        """Sends `record` to a worker. One that is gone is noticed by the next `receive`."""
        with contextlib.suppress(OSError):
            self._sockets[rank].send(record)

    def broadcast(self, record: bytes) -> None:
        """Sends `record` to every worker that has joined."""
        for rank in self._sockets:
            self.send(rank, record)

    def _admit(self) -> None:
        connection, _ = self._listener.accept()
        try:
            hello = self._checked_hello(connection)
        except ProtocolError as error:
            connection.send(exchange_pb2.Welcome(refused=str(error)).SerializeToString())
            connection.close()
            return
        self._sockets[hello.rank] = connection
        self._left.discard(hello.rank)
        self._ranks[connection.fileno()] = hello.rank
        self._poll.register(connection, select.POLLIN)
        # Last: whoever knows that the worker is let in may count on it that `broadcast` reaches it.
        descriptors.send(connection, self._welcome(hello.rank).SerializeToString(), self._fds)

    def _checked_hello(self, connection: socket.socket) -> exchange_pb2.Hello:
        _, uid, _ = self._credentials(connection)
        if uid != os.getuid():
            raise ProtocolError(f"expected a process of user {os.getuid()}; found user {uid}")
        connection.settimeout(10.0)  # a worker says hello at once; one that does not must not hold up the others
        try:
            hello = exchange_pb2.Hello.FromString(connection.recv(messages.MESSAGE_BYTES_MAX))
        except Exception as error:
            raise ProtocolError(f"expected a Hello; found {error}") from error
        connection.settimeout(None)
        if hello.protocol_version != messages.PROTOCOL_VERSION:
            raise ProtocolError(
                f"expected protocol version {messages.PROTOCOL_VERSION}; found {hello.protocol_version}"
            )
        if hello.job_id != self._job_id:
            raise ProtocolError(f"expected a worker of job {self._job_id!r}; found {hello.job_id!r}")
        if hello.rank not in self._expected or hello.rank in self._sockets:
            ranks = f"{self._expected.start} to {self._expected.stop - 1}"
            raise ProtocolError(f"expected a free rank of this host, {ranks}; found {hello.rank}")
        if hello.layout_sha256 != self._layout.names_sha256:
            raise ProtocolError(
                f"expected a model of the tensors {_shapes(self._layout)}; found other names or shapes: does the "
                f"model's init give the same ones each time?"
            )
        return hello

    def close(self) -> None:
        for connection in (self._listener, *self._sockets.values()):
            connection.close()
        for fd in (self._wake, *self._fds):
            os.close(fd)


def _shapes(layout: Layout) -> str:
    return ", ".join(f"{tensor.name} {tensor.shape}" for tensor in layout.tensors)
