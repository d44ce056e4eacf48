"""The exchange where the workers of one host meet: the server's process has no part in a step.

Rules:
  - `parameters()` is the newest version, from the moment `begin` or `complete` returned until the next `complete`. It
    is read-only.
  - `gradient(m)` belongs to this worker until the `complete` of the step; then all read it, and those of the first
    microbatches become the next version and the next state of the rule.
  - In `complete` the worker does its share of the server's work: sum, update, publish (`ServerWork`, handed in).
  - Waiting blocks in the kernel: no polling, no spinning.
"""

from __future__ import annotations

import os
import select
from collections.abc import Callable, Sequence
from time import perf_counter
from types import TracebackType
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from thalweg_proto import messages
from thalweg_proto.board import Board, Outcome
from thalweg_proto.faults import NO_FAULTS, Faults
from thalweg_proto.rendezvous import Rendezvous, RendezvousFds
from thalweg_proto.shared_memory import PERIOD, VERSION_ROWS, MemoryPlan, Vectors
from thalweg_worker.exchange.connection import Connection


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

    def __call__(
        self, plan: MemoryPlan, vectors: Vectors, board: Board, *, rank: int, workers: int, copies: Copies
    ) -> ServerWork: ...


class Copies:
    """What a worker asks of the server for its checkpoints."""

    def __init__(self, connection: Connection, board: Board, made: int) -> None:
        """Takes over `made`, an eventfd that the server writes to with each copy."""
        self._connection = connection
        self._board = board
        self._made = made
        self._poll = select.poll()
        self._poll.register(made, select.POLLIN)
        self._poll.register(connection, select.POLLIN)

    def ask(self, version: int) -> None:
        """Asks for a copy of `version`."""
        self._connection.send(messages.pack_copy_asked(messages.CopyAsked(version)))

    def wait(self, version: int) -> bool:
        """Waits until it is made, or the server wants none; False where the server says something else, or is gone."""
        while self._board.copied < version:
            if all(fd != self._made for fd, _ in self._poll.poll()):
                return False
            os.eventfd_read(self._made)
        return True

    def close(self) -> None:
        os.close(self._made)


class MeetingExchange:
    """One worker's end.

    board:        the numbers that all of this host share
    microbatches: the microbatches that this worker computes in each step
    overwritten:  those of all microbatches whose gradients an update overwrites
    chunks:       the chunks of the held-out set that it evaluates
    push_s, apply_s: of the last `complete`, in seconds (messages.StepRecord)
    faults:       what is planned for this worker
    """

    def __init__(self, connection: Connection, new_server_work: NewServerWork, faults: Faults = NO_FAULTS) -> None:
        """Maps what the server handed over."""
        self.connection = connection
        self.faults = faults
        self.rank = connection.rank
        self.push_s = self.apply_s = 0.0
        self._alarm = select.poll()
        self._alarm.register(connection, select.POLLIN)
        welcome, fds, layout = connection.welcome, connection.fds, connection.layout
        self.microbatches = range(welcome.gradients_of_worker.begin, welcome.gradients_of_worker.end)
        self.chunks = range(welcome.chunks_of_worker.begin, welcome.chunks_of_worker.end)
        plan = MemoryPlan(size=welcome.size, microbatches=welcome.gradients, slots=welcome.slots)
        self.overwritten = plan.overwritten
        vectors, self.board = Vectors(plan, fds[0]), Board(plan, welcome.workers, fds[1])
        os.close(fds[0])
        os.close(fds[1])
        meeting = RendezvousFds(fds[2], (fds[3], fds[4]))
        self._rendezvous = Rendezvous(meeting, welcome.workers, connection.fileno())
        self._copies = Copies(connection, self.board, fds[5])
        self._work = new_server_work(
            plan, vectors, self.board, rank=self.rank, workers=welcome.workers, copies=self._copies
        )
        # Views are made once: a step creates no array.
        self._parameters = [layout.views(vectors.version(row)) for row in range(VERSION_ROWS)]
        self._gradients = [
            {m: layout.views(vectors.gradient(step, m)) for m in self.microbatches} for step in range(PERIOD)
        ]

    def begin(self) -> bool:
        """Waits until all workers have joined; False where the run is over before that."""
        return isinstance(self.connection.receive(), messages.Begin)

    def parameters(self) -> dict[str, NDArray[np.float32]]:
        """The newest version by name, read-only views."""
        return self._parameters[self.board.version % VERSION_ROWS]

    def gradient(self, microbatch: int) -> dict[str, NDArray[np.float32]]:
        """Where the gradient of `microbatch` for this step goes, by name, writable views."""
        return self._gradients[self.board.version % PERIOD][microbatch]

    def busy(self) -> None:
        """Writes down that this worker begins a piece of work."""
        self.board.busy_since[self.rank] = perf_counter()

    def idle(self) -> None:
        """Writes down that it has none, and may wait for as long as it takes."""
        self.board.busy_since[self.rank] = 0.0

    def complete(self, meanwhile: Callable[[], None]) -> bool:
        """Says that this worker's gradients are there; returns when the next version is, or will never be.

        meanwhile: what this worker may do where it would wait; called once for each rendezvous at which it does

        False where the server says that the run is over. Raises ServerError where the server is gone.
        """
        step = self.board.version
        self.faults.at("push.before", step)
        begin = perf_counter()
        last = self._rendezvous.arrive()
        self.faults.at("push.after", step)
        self.push_s, self.apply_s = perf_counter() - begin, 0.0
        going = self._go_on(last, self._work.pushed, meanwhile)
        for share, once in self._work.shares:
            if not going or self.board.outcome is not Outcome.TRAIN:
                break
            begin = self.board.busy_since[self.rank] = perf_counter()
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
        self.idle()
        if self._rendezvous.wait():
            return True
        self.connection.receive()  # a Stop; raises where it is the end of the server
        return False

    def _called_off(self) -> bool:
        """Whether the server ended the run; a worker that is always the last, as one that is alone, never waits."""
        return bool(self._alarm.poll(0)) and isinstance(self.connection.receive(), messages.Stop)

    def close(self) -> None:
        self._work.close()
        self._copies.close()
        self._rendezvous.close()

    def __enter__(self) -> MeetingExchange:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
