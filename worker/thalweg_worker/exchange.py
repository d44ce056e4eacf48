"""A worker's end of the exchange with the server of its host: tensors in place, a socket to wake each other.

Rules:
  - `parameters(version)` may be read from the moment `receive` returned the Publish of that version until this worker
    has pushed its last gradient for that step. It is read-only.
  - `gradient(m)` belongs to this worker from the Publish of a step until it pushed m; then the server reads it.
  - `receive` blocks in the kernel: no polling, no spinning.
"""

from __future__ import annotations

import contextlib
import os
import socket
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from thalweg_proto import messages
from thalweg_proto.errors import ProtocolError, ServerError
from thalweg_proto.layout import Layout
from thalweg_proto.shared_memory import map_segment
from thalweg_proto.v1 import exchange_pb2


class Exchange:
    """The connection of one worker.

    microbatches: the microbatches that this worker computes in each step
    chunks:       the chunks of the held-out set that it evaluates
    """

    def __init__(self, address: str, *, job_id: str, rank: int, layout: Layout) -> None:
        """Joins the server at `address`, the name of an abstract Unix socket.

        Raises ServerError where no server listens there, ProtocolError where it refuses this worker.
        """
        self.rank = rank
        self._pushes: list[bytes] = []
        self._layout = layout
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            self._socket.connect("\0" + address)
        except OSError as error:
            self._socket.close()
            raise ServerError(f"worker {rank}: no server listens at {address!r} on this host ({error})") from error
        try:
            welcome, (parameters_fd, gradients_fd) = self._join(job_id)
        except BaseException:
            self._socket.close()
            raise
        self.generation: int = welcome.generation
        self.microbatches = range(welcome.microbatches_of_worker.begin, welcome.microbatches_of_worker.end)
        self.chunks = range(welcome.chunks_of_worker.begin, welcome.chunks_of_worker.end)
        parameters = map_segment(parameters_fd, 2, layout.size, writable=False)
        gradients = map_segment(gradients_fd, welcome.microbatches, layout.size, writable=True)
        os.close(parameters_fd)
        os.close(gradients_fd)
        # Views are made once: a step creates no array.
        self._parameters = [layout.views(version) for version in parameters]
        self._gradients = {m: layout.views(gradients[m]) for m in self.microbatches}

    def _join(self, job_id: str) -> tuple[exchange_pb2.Welcome, tuple[int, int]]:
        hello = exchange_pb2.Hello(
            protocol_version=messages.PROTOCOL_VERSION,
            job_id=job_id,
            rank=self.rank,
            layout_sha256=self._layout.names_sha256,
        )
        self._socket.sendall(hello.SerializeToString())
        data, fds, _, _ = socket.recv_fds(self._socket, messages.MESSAGE_BYTES_MAX, 2)
        welcome = exchange_pb2.Welcome.FromString(data)
        if welcome.refused or len(fds) != 2:
            raise ProtocolError(f"worker {self.rank}: the server refused it: {welcome.refused or 'no answer'}")
        return welcome, (fds[0], fds[1])

    def parameters(self, version: int) -> dict[str, NDArray[np.float32]]:
        """Version `version` by name, read-only views."""
        return self._parameters[version % 2]

    def gradient(self, microbatch: int) -> dict[str, NDArray[np.float32]]:
        """The gradient slot of `microbatch` by name, writable views."""
        return self._gradients[microbatch]

    def push(self, push: messages.Push) -> None:
        """Notes that the gradient is in its slot; `flush` says so to the server."""
        self._pushes.append(messages.pack_push(push))

    def flush(self) -> None:
        """Tells the server of all pushes at once: it is woken once for each worker, not for each microbatch."""
        self._send(b"".join(self._pushes))
        self._pushes.clear()

    def evaluated(self, message: messages.Evaluated) -> None:
        """Hands over the result of one held-out chunk."""
        self._send(messages.pack_evaluated(message))

    def receive(self) -> messages.Publish | messages.Stop:
        """Waits for the next version. Raises ServerError where the server is gone."""
        try:
            record = self._socket.recv(messages.MESSAGE_BYTES_MAX)
        except ConnectionResetError:
            # The server closed while a push of ours was unread. Linux says so first, and only then what it had sent.
            record = self._socket.recv(messages.MESSAGE_BYTES_MAX)
        if not record:
            raise ServerError(f"worker {self.rank}: the server of this host closed the connection")
        return messages.unpack_from_server(record)

    def _send(self, record: bytes) -> None:
        # A server that stops closes its end while this worker may still compute. What it said last is yet to be read:
        # `receive` tells a stop from a server that died.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._socket.send(record)

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> Exchange:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
