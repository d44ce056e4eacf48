"""The exchange where the workers of one host meet: the server's process has no part in a step.

Rules:
  - `parameters(t)` is the newest version, from the moment `meet` or `complete` returned until the next `complete`. It
    is read-only.
  - Whoever takes a microbatch (`take`) computes it, and `gradient(t, m)` belongs to this worker until `arrive`; then
    all read it, and those of the first microbatches become the next version and the next state of the rule.
  - In `complete` the worker does its share of the server's work: sum, update, publish (`ServerWork`, handed in).
  - Who meets may change between any two microbatches: where one dies or joins, the server calls all out of the meeting,
    and lets it begin anew, at the same step, with those microbatches that were not computed yet.
  - A worker that the others would only wait for may be left out of it while it computes (permits.py): others compute
    its microbatches then. It learns of that when it is done, says what it has, and waits to be told who meets.
  - Waiting blocks in the kernel: no polling, no spinning.
"""

from __future__ import annotations

import os
import select
from collections.abc import Callable, Generator, Iterator, Sequence
from time import perf_counter
from types import TracebackType
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from thalweg_proto import messages
from thalweg_proto.board import Board, Outcome
from thalweg_proto.deal import Hands
from thalweg_proto.faults import NO_FAULTS, Faults
from thalweg_proto.permits import put_down, take_up
from thalweg_proto.rendezvous import Rendezvous, RendezvousFds
from thalweg_proto.shared_memory import VERSION_ROWS, MemoryPlan, Vectors
from thalweg_proto.shares import share
from thalweg_worker.exchange.connection import MEETING_FDS, Connection
from thalweg_worker.exchange.taking import OUT_S, Pace, SittingOut, at_once, helps, sits_out


class ServerWork(Protocol):
    """The server's part of a step, as far as one worker does it."""

    def join(self, place: int, members: int) -> None:
        """Before the first step and after each change of those who meet: this worker is number `place` of `members`."""
        ...

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
        self, plan: MemoryPlan, vectors: Vectors, board: Board, *, rank: int, copies: Copies
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
    microbatches: those that are dealt to this worker in each step
    overwritten:  those of all microbatches whose gradients an update overwrites
    chunks:       the chunks of the held-out set that it evaluates
    push_s, apply_s: of the last step, in seconds (messages.StepRecord)
    faults:       what is planned for this worker
    moved:        whether rows have other places since the last `meet`
    """

    def __init__(self, connection: Connection, new_server_work: NewServerWork, faults: Faults = NO_FAULTS) -> None:
        """Maps what the server handed over."""
        self.connection = connection
        self.faults = faults
        self.moved = False
        self.rank = connection.rank
        self.push_s = self.apply_s = 0.0
        self._alarm = select.poll()
        self._alarm.register(connection, select.POLLIN)
        welcome, fds = connection.welcome, connection.fds
        self.microbatches = self.chunks = range(0)
        plan = MemoryPlan(size=welcome.size, microbatches=welcome.gradients, slots=welcome.slots)
        self.overwritten = plan.overwritten
        self._vectors, self.board = Vectors(plan, fds[0]), Board(plan, welcome.workers, fds[1])
        os.close(fds[0])
        os.close(fds[1])
        self._rendezvous = Rendezvous(RendezvousFds(fds[2], (fds[3], fds[4])), connection.fileno())
        self._copies = Copies(connection, self.board, fds[5])
        hands, permits = fds[MEETING_FDS:][: welcome.workers], fds[MEETING_FDS + welcome.workers :]
        self._hands = Hands(hands, self.board, connection.fileno())
        self._permit = os.dup(permits[self.rank])
        for fd in permits:
            os.close(fd)
        self._out = False  # whether it was left out
        self._losses: dict[int, float] = {}  # of the microbatches that are computed, and not on the board yet
        self._others: tuple[int, ...] = ()
        self._sitting_out, self._pace, self._own_s = SittingOut(), Pace(), 0.0
        self._last = False
        self._work = new_server_work(plan, self._vectors, self.board, rank=self.rank, copies=self._copies)
        self._parameters = self._views()

    def _views(self) -> list[dict[str, NDArray[np.float32]]]:
        """Made once, or where rows have other places: a step creates no array."""
        return [self.connection.layout.views(self._vectors.version(row)) for row in range(VERSION_ROWS)]

    def meet(self) -> bool:
        """Waits until it is said who meets from now on; False where the run is over. What `parameters` and `gradient`
        gave before is of no use any more where `moved` says so."""
        if not self._out:
            self.idle()
        while not isinstance(message := self.connection.receive(), messages.Begin):
            if isinstance(message, messages.Stop):
                return False
            self.connection.regrouped()
        members, places = self.board.members, self.board.places
        self._out, self.moved = False, places != self._vectors.places
        if self.moved:
            self._vectors.places = places
            self._parameters = self._views()
        place, count = members.index(self.rank), len(members)
        self.microbatches = share(self.connection.welcome.gradients, place, count)
        self.chunks = share(self.connection.welcome.chunks, place, count)
        # Whom it helps first is another one for each.
        self._others = members[place + 1 :] + members[:place]
        self._rendezvous.join(count)
        self._work.join(place, count)
        return True

    def parameters(self, version: int) -> dict[str, NDArray[np.float32]]:
        """The newest version, which is `version`, by name, read-only views."""
        return self._parameters[version % VERSION_ROWS]

    def gradient(self, step: int, microbatch: int) -> dict[str, NDArray[np.float32]]:
        """Where the gradient of `microbatch` for the step `step` goes, which this worker is in, by name, new writable
        views."""
        return self.connection.layout.views(self._vectors.gradient(step, microbatch))

    def take(self) -> Iterator[list[int]]:
        """The microbatches that this worker computes in this step, some at a time; these are computed before the next
        ones are asked for. It ends early where the server calls."""
        board, rank, mark = self.board, self.rank, perf_counter()
        if self._sitting_out.this_step(self._slow()):
            board.piece_s[rank] = OUT_S
        else:
            board.piece_s[rank] = self._own_s
            count = at_once(self._own_s)
            while board.left[rank] and not self._called() and (some := self._hands.take_first(rank, count)):
                mark = yield from self._computed(some, mark)
        while any(map(board.left.__getitem__, self._others)) and not self._called() and (some := self._from_others()):
            mark = yield from self._computed(some, mark)

    def _computed(self, some: list[int], begin: float) -> Generator[list[int], None, float]:
        board, rank, step = self.board, self.rank, self.board.version
        self._losses.clear()
        board.begins(rank, some)
        board.busy_since[rank] = begin
        put_down(self._permit)
        yield some
        end = perf_counter()
        self._own_s = self._pace.took((end - begin) / len(some))
        if self._out or not take_up(self._permit):
            self._out = True
            for m, loss in self._losses.items():
                self.connection.send(messages.pack_computed(messages.Computed(step, m, loss)))
            return end
        for m in some:
            board.losses[m], board.done[m] = self._losses[m], step + 1
        board.piece_s[rank] = self._own_s
        return end

    def computed(self, microbatch: int, loss: float) -> None:
        """A microbatch that this worker took is computed: its gradient is there, and this is its mean loss."""
        self._losses[microbatch] = loss

    @property
    def left_out(self) -> bool:
        """Whether the others go on without this worker, in the middle of what it computes: then what it reads may be
        anything."""
        if not self._out:
            self._out = not take_up(self._permit)
            if not self._out:
                put_down(self._permit)
        return self._out

    def _slow(self) -> bool:
        board = self.board
        return sits_out(self._own_s, [board.piece_s[each] for each in self._others], sum(board.left))

    def _from_others(self) -> list[int]:
        board = self.board
        for other in self._others:
            if helps(board.left[other], board.piece_s[other], self._own_s):
                some = self._hands.take_last(other)
                if some:
                    return some
        return []

    def busy(self) -> None:
        """Writes down that this worker begins a piece of work."""
        self.board.busy_since[self.rank] = perf_counter()

    def idle(self) -> None:
        """Writes down that it has none, until it is told who meets."""
        self.board.busy_since[self.rank] = 0.0

    def arrive(self) -> Iterator[list[int]]:
        """Says that this worker's gradients are there. The last one to say so gets what nobody has taken."""
        if self._out:
            return
        board, step = self.board, self.board.version
        self.faults.at("push.before", step)
        begin = perf_counter()
        self._last = self._arrive()
        self.faults.at("push.after", step)
        self.push_s, self.apply_s = perf_counter() - begin, 0.0
        if self._last:
            mark = begin + self.push_s
            for rank in (self.rank, *self._others):
                while board.left[rank] and not self._called() and (some := self._hands.take_first(rank)):
                    mark = yield from self._computed(some, mark)

    def complete(self, meanwhile: Callable[[], None]) -> bool:
        """After `arrive`; returns when the next version is there, or will not be made by those who meet now.

        meanwhile: what this worker may do where it would wait; called once for each rendezvous at which it does

        False where the server calls: `meet` says for what. Raises ServerError where the server is gone.
        """
        if self._out or (self._last and self._called()):
            return False
        going = self._go_on(self._last, self._pushed, meanwhile)
        for work, once in self._work.shares:
            if not going or self.board.outcome is not Outcome.TRAIN:
                break
            begin = self.board.busy_since[self.rank] = perf_counter()
            work()
            self.apply_s += perf_counter() - begin
            going = self._go_on(self._arrive(), once, meanwhile)
        return going

    def _arrive(self) -> bool:
        """Whether this worker is the last one; if not, it waits, and that is no hanging."""
        number = self.board.next_rendezvous  # before others may open it
        last = self._rendezvous.arrive()
        if not last:
            self.board.arrived[self.rank] = number
        return last

    def _pushed(self) -> None:
        self._hands.deal()  # for the next step, while nobody takes any
        self._work.pushed()

    def _go_on(self, last: bool, once: Callable[[], None], meanwhile: Callable[[], None]) -> bool:
        """The rest of a rendezvous after `arrive`; False where the server calls."""
        if last:
            once()
            self.board.open(perf_counter())
            self._rendezvous.open()
            return True
        meanwhile()
        return self._rendezvous.wait()

    def _called(self) -> bool:
        """Whether the server calls, or is gone."""
        return self._out or bool(self._alarm.poll(0))

    def close(self) -> None:
        os.close(self._permit)
        self._hands.close()
        self._work.close()
        self._copies.close()
        self._rendezvous.close()

    def __enter__(self) -> MeetingExchange:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
