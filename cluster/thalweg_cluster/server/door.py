"""The server's end of the exchange on one host: lets the workers in, hears them, wakes them.

Rules:
  - A step never passes through here: the workers meet at the rendezvous. What comes in is what they tell of their
    steps, many at a time; what goes out is the begin and the stop.
  - The socket is an abstract Unix socket: it has no file, so none is left behind. Only processes of the same user
    (SO_PEERCRED) with the job's id and the server's own idea of the model come in.
  - A worker that joins gets the file descriptors of what the host shares, and maps them.
  - Waiting is a blocking poll; `interrupt` ends it from another thread.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import struct
from collections.abc import Iterator, Sequence

from thalweg_proto import messages
from thalweg_proto.errors import ProtocolError, WorkerError
from thalweg_proto.layout import Layout
from thalweg_proto.shared_memory import MemoryPlan
from thalweg_proto.shares import share
from thalweg_proto.v1 import exchange_pb2

_CREDENTIALS = struct.Struct("3i")


class Door:
    """Listens for the workers of one job on this host."""

    def __init__(
        self,
        address: str,
        *,
        job_id: str,
        layout: Layout,
        workers: int,
        plan: MemoryPlan,
        chunks: int,
        fds: Sequence[int],
    ) -> None:
        """Binds the abstract socket `address` and listens.

        chunks: into how many chunks the held-out set is cut
        fds:    of the vectors, the board, and the rendezvous; the door closes them
        """
        self._job_id = job_id
        self._layout = layout
        self._workers = workers
        self._plan = plan
        self._chunks = chunks
        self._fds = fds
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.bind("\0" + address)
        self._listener.listen(workers)
        self._wake_read, self._wake_write = os.pipe()
        self._poll = select.poll()
        self._poll.register(self._listener, select.POLLIN)
        self._poll.register(self._wake_read, select.POLLIN)
        self._sockets: dict[int, socket.socket] = {}  # by rank
        self._ranks: dict[int, int] = {}  # rank by file descriptor
        self._left: set[int] = set()

    @property
    def full(self) -> bool:
        """Whether every worker has joined."""
        return len(self._sockets) == self._workers

    @property
    def joined(self) -> int:
        """How many workers have joined."""
        return len(self._sockets)

    @property
    def deserted(self) -> bool:
        """Whether every worker has left."""
        return len(self._left) == self._workers

    def interrupt(self) -> None:
        """Ends the waiting of `receive` now; may be called from any thread."""
        os.write(self._wake_write, b"\0")

    def receive(self, timeout_s: float | None = None) -> Iterator[tuple[int, bytes]]:
        """Blocks until something is there, or the timeout; yields (rank, record) of what there is.

        Nothing where workers only joined, or after an `interrupt`. Raises WorkerError where a worker is gone that has
        not said that it leaves.
        """
        for fd, _ in self._poll.poll(None if timeout_s is None else 1e3 * timeout_s):
            rank = self._ranks.get(fd)
            if rank is not None:
                yield rank, self._hear(rank)
            elif fd == self._listener.fileno():
                self._admit()
            else:
                os.read(self._wake_read, 1)

    def left(self, rank: int) -> None:
        """The worker said that it leaves: that it closes its connection is no error any more."""
        self._left.add(rank)
        self._poll.unregister(self._sockets[rank])

    def _hear(self, rank: int) -> bytes:
        try:
            record = self._sockets[rank].recv(messages.MESSAGE_BYTES_MAX)
        except OSError as error:
            raise WorkerError(f"worker {rank} is gone: {error}") from error
        if not record:
            raise WorkerError(f"worker {rank} is gone: it closed its connection")
        return record

    def broadcast(self, record: bytes) -> None:
        """Sends `record` to every worker. One that is gone is noticed by the next `receive`."""
        for connection in self._sockets.values():
            with contextlib.suppress(OSError):
                connection.send(record)

    def _admit(self) -> None:
        connection, _ = self._listener.accept()
        try:
            hello = self._checked_hello(connection)
        except ProtocolError as error:
            connection.send(exchange_pb2.Welcome(refused=str(error)).SerializeToString())
            connection.close()
            return
        microbatches = share(self._plan.microbatches, hello.rank, self._workers)
        chunks = share(self._chunks, hello.rank, self._workers)
        welcome = exchange_pb2.Welcome(
            workers=self._workers,
            microbatches=self._plan.microbatches,
            slots=self._plan.slots,
            size=self._plan.size,
            microbatches_of_worker=exchange_pb2.Range(begin=microbatches.start, end=microbatches.stop),
            chunks_of_worker=exchange_pb2.Range(begin=chunks.start, end=chunks.stop),
        )
        socket.send_fds(connection, [welcome.SerializeToString()], list(self._fds))
        self._sockets[hello.rank] = connection
        self._ranks[connection.fileno()] = hello.rank
        self._poll.register(connection, select.POLLIN)

    def _checked_hello(self, connection: socket.socket) -> exchange_pb2.Hello:
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        _, uid, _ = _CREDENTIALS.unpack(credentials)
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
        if hello.rank >= self._workers or hello.rank in self._sockets:
            raise ProtocolError(f"expected a free rank below {self._workers}; found {hello.rank}")
        if hello.layout_sha256 != self._layout.names_sha256:
            raise ProtocolError(
                f"expected a model of the tensors {_shapes(self._layout)}; found other names or shapes: does the "
                f"model's init give the same ones each time?"
            )
        return hello

    def close(self) -> None:
        for connection in (self._listener, *self._sockets.values()):
            connection.close()
        for fd in (self._wake_read, self._wake_write, *self._fds):
            os.close(fd)


def _shapes(layout: Layout) -> str:
    return ", ".join(f"{tensor.name} {tensor.shape}" for tensor in layout.tensors)
