"""A worker's end of the exchange with the server and the other workers of its host.

Rules:
  - `parameters()` is the newest version, from the moment `begin` or `complete` returned until the next `complete`. It
    is read-only.
  - `gradient(m)` belongs to this worker until the `complete` of the step; then all read it, and that of microbatch 0
    becomes the next version.
  - In `complete` the worker does its share of the server's work: sum, update, publish (`ServerWork`, handed in).
  - Waiting blocks in the kernel: no polling, no spinning.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
from collections.abc import Callable, Sequence
from time import perf_counter
from types import TracebackType
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from thalweg_proto import messages
from thalweg_proto.board import Board, Outcome
from thalweg_proto.errors import ProtocolError, ServerError
from thalweg_proto.layout import Layout
from thalweg_proto.rendezvous import Rendezvous, RendezvousFds
from thalweg_proto.shared_memory import VERSION_ROWS, MemoryPlan, Vectors
from thalweg_proto.v1 import exchange_pb2

REPORT_S = 0.25
"""How old a step may get before the server is told of it: each telling costs the workers' cores some time."""
_FDS = 5


class ServerWork(Protocol):
    """The server's part of a step, as far as one worker does it."""

    @property
    def shares(self) -> Sequence[tuple[Callable[[], None], Callable[[], None]]]:
        """In this order: this worker's share, and what the last one does once all have done theirs."""
        ...

    def pushed(self) -> None:
        """Once, when the gradients of all workers are there, before the shares."""
        ...

    def close(self) -> None: ...


class NewServerWork(Protocol):
    """Makes the ServerWork of one worker."""

    def __call__(self, plan: MemoryPlan, vectors: Vectors, board: Board, *, rank: int, workers: int) -> ServerWork: ...


class Exchange:
    """The connection of one worker.

    board:        the numbers that all of this host share
    microbatches: the microbatches that this worker computes in each step
    chunks:       the chunks of the held-out set that it evaluates
    push_s, apply_s: of the last `complete`, in seconds (messages.StepRecord)
    """

    def __init__(self, address: str, *, job_id: str, rank: int, layout: Layout, new_server_work: NewServerWork) -> None:
        """Joins the server at `address`, the name of an abstract Unix socket.

        Raises ServerError where no server listens there, ProtocolError where it refuses this worker.
        """
        self.rank = rank
        self.push_s = self.apply_s = 0.0
        self._layout = layout
        self._records: list[bytes] = []
        self._reported_s = 0.0
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._alarm = select.poll()
        self._alarm.register(self._socket, select.POLLIN)
        try:
            self._socket.connect("\0" + address)
        except OSError as error:
            self._socket.close()
            raise ServerError(f"worker {rank}: no server listens at {address!r} on this host ({error})") from error
        try:
            welcome, fds = self._join(job_id)
        except BaseException:
            self._socket.close()
            raise
        self.microbatches = range(welcome.microbatches_of_worker.begin, welcome.microbatches_of_worker.end)
        self.chunks = range(welcome.chunks_of_worker.begin, welcome.chunks_of_worker.end)
        plan = MemoryPlan(size=welcome.size, microbatches=welcome.microbatches, slots=welcome.slots)
        vectors, self.board = Vectors(plan, fds[0]), Board(plan, welcome.workers, fds[1])
        os.close(fds[0])
        os.close(fds[1])
        meeting = RendezvousFds(fds[2], (fds[3], fds[4]))
        self._rendezvous = Rendezvous(meeting, welcome.workers, self._socket.fileno())
        self._work = new_server_work(plan, vectors, self.board, rank=rank, workers=welcome.workers)
        # Views are made once: a step creates no array.
        self._parameters = [layout.views(vectors.version(row)) for row in range(VERSION_ROWS)]
        self._gradients = [
            {m: layout.views(vectors.gradient(step, m)) for m in self.microbatches} for step in range(VERSION_ROWS)
        ]

    def _join(self, job_id: str) -> tuple[exchange_pb2.Welcome, list[int]]:
        hello = exchange_pb2.Hello(
            protocol_version=messages.PROTOCOL_VERSION,
            job_id=job_id,
            rank=self.rank,
            layout_sha256=self._layout.names_sha256,
        )
        self._socket.sendall(hello.SerializeToString())
        data, fds, _, _ = socket.recv_fds(self._socket, messages.MESSAGE_BYTES_MAX, _FDS)
        welcome = exchange_pb2.Welcome.FromString(data)
        if welcome.refused or len(fds) != _FDS:
            raise ProtocolError(f"worker {self.rank}: the server refused it: {welcome.refused or 'no answer'}")
        return welcome, fds

    def begin(self) -> bool:
        """Waits until all workers have joined; False where the run is over before that."""
        return isinstance(self._receive(), messages.Begin)

    def parameters(self) -> dict[str, NDArray[np.float32]]:
        """The newest version by name, read-only views."""
        return self._parameters[self.board.version % VERSION_ROWS]

    def gradient(self, microbatch: int) -> dict[str, NDArray[np.float32]]:
        """Where the gradient of `microbatch` for this step goes, by name, writable views."""
        return self._gradients[self.board.version % VERSION_ROWS][microbatch]

    def complete(self, meanwhile: Callable[[], None]) -> bool:
        """Says that this worker's gradients are there; returns when the next version is, or will never be.

        meanwhile: what this worker may do where it would wait; called once for each rendezvous at which it does

        False where the server says that the run is over. Raises ServerError where the server is gone.
        """
        begin = perf_counter()
        last = self._rendezvous.arrive()
        self.push_s, self.apply_s = perf_counter() - begin, 0.0
        going = self._go_on(last, self._work.pushed, meanwhile)
        for share, once in self._work.shares:
            if not going or self.board.outcome is not Outcome.TRAIN:
                break
            begin = perf_counter()
            share()
            self.apply_s += perf_counter() - begin
            going = self._go_on(self._rendezvous.arrive(), once, meanwhile)
        return going and not self._called_off()

    def _go_on(self, last: bool, once: Callable[[], None], meanwhile: Callable[[], None]) -> bool:
        """The rest of a rendezvous after `arrive`; False where the server ended the run."""
        if last:
            once()
            self._rendezvous.open()
            return True
        meanwhile()
        if self._rendezvous.wait():
            return True
        self._receive()  # a Stop; raises where it is the end of the server
        return False

    def _called_off(self) -> bool:
        """Whether the server ended the run; a worker that is always the last, as one that is alone, never waits."""
        return bool(self._alarm.poll(0)) and isinstance(self._receive(), messages.Stop)

    def tell(self, record: messages.StepRecord) -> None:
        """Tells the server how a step went: at once, or together with those that follow within REPORT_S."""
        self._records.append(messages.pack_step(record))
        if record.published_s - self._reported_s >= REPORT_S or len(self._records) == messages.RECORDS_MAX:
            self._reported_s = record.published_s
            self._flush()

    def evaluated(self, message: messages.Evaluated) -> None:
        """Hands over the result of one held-out chunk."""
        self._flush()
        self._send(messages.pack_evaluated(message))

    def leave(self) -> None:
        """The last word: this worker trains no more."""
        self._flush()
        self._send(messages.pack_left())

    def _flush(self) -> None:
        if self._records:
            self._send(b"".join(self._records))
            self._records.clear()

    def _receive(self) -> messages.Begin | messages.Stop:
        """Waits for a word of the server. Raises ServerError where it is gone."""
        try:
            record = self._socket.recv(messages.MESSAGE_BYTES_MAX)
        except ConnectionResetError:
            # The server closed while a record of ours was unread. Linux says so first, and only then what it had sent.
            record = self._socket.recv(messages.MESSAGE_BYTES_MAX)
        if not record:
            raise ServerError(f"worker {self.rank}: the server of this host closed the connection")
        return messages.unpack_from_server(record)

    def _send(self, record: bytes) -> None:
        # A server that stops closes its end while this worker may still compute. What it said last is yet to be read:
        # `complete` tells a stop from a server that died.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._socket.send(record)

    def close(self) -> None:
        self._work.close()
        self._rendezvous.close()
        self._socket.close()

    def __enter__(self) -> Exchange:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
