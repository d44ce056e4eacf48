"""The server of one host: it owns the memory of the parameters, lets the workers in, and keeps the account of the run.

The way of a step does not pass through its process. The workers meet, sum, update and publish on its behalf, in its
memory (step.py), since they would only wait while it did; it sleeps until they have something to tell:

    all workers have joined -> version 0 is on the board -> [ what they tell of their steps ] -> all have left
                                                                  evaluations
Rules:
  - A run ends with a version that is whole: the last one, the newest when it was asked to stop, or the one before a
    step that came to NaN or infinity.
  - A worker whose process dies leaves its microbatches to the living at once (membership.py); where none lives, the run
    stands still until new ones join. A worker that raises an exception ends the run: others would raise it, too.
  - One that holds up all others in the middle of a microbatch is left out until it is done, and others compute that
    one, too (speculation.py, places.py).
"""

from __future__ import annotations

import os
import threading
from collections.abc import Container, Iterable
from contextlib import suppress
from dataclasses import replace
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from thalweg_cluster.checkpoints.saver import Saver
from thalweg_cluster.checkpoints.state import ShardState, TrainingState, fill_state
from thalweg_cluster.consistency.verdict import Verdict
from thalweg_cluster.server.account import Account
from thalweg_cluster.server.door import Door, Gone
from thalweg_cluster.server.leases import Leases
from thalweg_cluster.server.membership import Membership
from thalweg_cluster.server.nonfinite import describe_non_finite
from thalweg_cluster.server.places import Places
from thalweg_cluster.server.spec import RunResult, ServerSpec, Snapshot
from thalweg_cluster.server.speculation import LOOK_S, Speculation
from thalweg_cluster.step import ADVICE
from thalweg_proto import messages
from thalweg_proto.board import Board, Outcome, board_bytes
from thalweg_proto.deal import create_hands, deal
from thalweg_proto.errors import NonFiniteError, ProtocolError, ServerError, ThalwegError, WorkerError
from thalweg_proto.messages import Broke, Computed, CopyAsked, Evaluated, Left, Regrouped
from thalweg_proto.permits import create_permits, take_up
from thalweg_proto.rendezvous import RendezvousFds
from thalweg_proto.shared_memory import FLOAT_BYTES, MemoryPlan, Vectors, create_segment, reserve
from thalweg_proto.shares import share
from thalweg_proto.v1 import exchange_pb2

STOP_S = 10.0
"""How long a run that is asked to stop may take to finish its step; then it ends with the version that is there."""


class Server:
    """Holds the parameters and the rule's state of one job; `serve` runs it from the first step to the last."""

    def __init__(self, spec: ServerSpec, start: TrainingState) -> None:
        """Takes the memory, listens, and puts `start` where its version lies.

        Raises OSError where /dev/shm has no room.
        """
        self.spec = spec
        self._step = spec.step
        rule = spec.step.server_rule()
        plan = MemoryPlan(size=spec.layout.size, microbatches=spec.step.microbatches, slots=len(rule.slots))
        fds = (
            create_segment(plan.vector_bytes, plan.spare_bytes),
            create_segment(board_bytes(plan, spec.workers)),
            *RendezvousFds.create(spec.workers),
            os.eventfd(0, os.EFD_CLOEXEC),
            *create_hands(spec.workers),
            *create_permits(spec.workers),
        )
        own = [os.dup(fd) for fd in fds[2:]]  # the door closes those that it hands over
        self._rendezvous, self._copy_made = RendezvousFds(own[0], (own[1], own[2])), own[3]
        self._hands, self._permits = own[4 : 4 + spec.workers], own[4 + spec.workers :]
        self._plan = plan
        self._membership = Membership()
        self._segment = os.dup(fds[0])
        self._places = Places(plan.rows, plan.spares, lambda place: reserve(self._segment, place, plan.size))
        self._speculation = Speculation()
        self._copies: set[tuple[int, int]] = set()  # steps and microbatches that are given to others, too
        self._left_out: dict[int, float] = {}  # by rank, of those who are: since when they are at what they do
        self._hung: dict[int, str] = {}
        self._vectors = Vectors(plan, fds[0])
        self._board = Board(plan, spec.workers, fds[1])
        self._rule = rule
        for array, slot in zip(self._vectors.state(start.version), rule.slots, strict=True):
            fill_state(array, slot, start, spec.layout)
        self._vectors.gradient(start.version - 1, 0)[...] = start.parameters  # where that version lies
        self._board.copy_made(start.version)
        self._board.publish(start.version, Outcome.TRAIN, evaluate=False, at_s=0.0)
        self._first = start.version
        self._leases = Leases(spec.lease_s)
        self._learning_rate = spec.step.learning_rate()
        moved = plan.size * FLOAT_BYTES
        self.account = Account(
            spec.step, first=start.step, workers=spec.workers, bytes_pushed=moved, bytes_published=moved
        )
        checkpoints, faults = self.account.telemetry.checkpoints, spec.faults.of("server", 0)
        self._saver = None if spec.save is None else Saver.to_storage(spec.save, checkpoints, faults)
        if self._saver is not None:
            self._saver.clear(start.step)
        self._stop_by: float | None = None  # perf_counter; set once the run is asked to stop
        self._stopping = threading.Lock()  # guards the run's end against `stop`
        self._door = Door(
            spec.address,
            job_id=spec.job_id,
            layout=spec.layout,
            ranks=range(spec.workers),
            welcome=lambda _: _welcome(plan, spec.workers, spec.step.chunks),
            fds=fds,
        )

    # The run

    def serve(self) -> RunResult:
        """Runs the job to its end, to `stop`, or to a failure, which the result then names."""
        error = None
        try:
            if self._admit_all():
                self._attend()
            self._save_last()
        except ThalwegError as failure:
            error = str(failure)
            if isinstance(failure, WorkerError):
                self._save_after_an_error()
        finally:
            if self._saver is not None:
                self._saver.close()
            for fd in (*self._rendezvous, self._copy_made, *self._hands, *self._permits, self._segment):
                os.close(fd)
            with self._stopping:
                self.account.end()
            self._door.broadcast(messages.pack_stop())
            self._door.close()
        board = self._board
        sha256 = self.spec.layout.sha256(self.weights())
        return self.account.result(
            error=error,
            version=board.version,
            published_s=board.published_s,
            weights_sha256=sha256,
        )

    def _admit_all(self) -> bool:
        """Lets the workers in; False where the run is asked to stop before all are there."""
        while not self._door.full and self._stop_by is None:
            for _, record in self._door.receive():
                if not isinstance(record, Gone):
                    raise ServerError("a worker spoke before all had joined")
            self.account.telemetry.joined = len(self._door.joined)
        return self._stop_by is None

    def _attend(self) -> None:
        """From the first step until all workers have nothing more to do."""
        self._board.publish(self._first, Outcome.TRAIN, evaluate=False, at_s=self.account.begin())
        self._regroup()
        while not self._membership.finished:
            patience_s = LOOK_S if self._stop_by is None else self._stop_by - perf_counter()
            if patience_s <= 0 or (self._stop_by is not None and not self._door.joined):
                break
            for rank, record in self._door.receive(min(patience_s, self._speculation.look_s(self._paces))):
                self._on_record(rank, record)
            self._end_who_hangs()
            self._pass_by_stragglers()
            self._regroup()
        self._catch_up()
        if self._board.outcome is Outcome.NOT_FINITE:
            raise self._non_finite()

    def _regroup(self) -> None:
        """Lets others meet where one is gone or has joined, as soon as all who met are out of the meeting."""
        joined, membership = self._door.joined, self._membership
        self._call(membership.call(joined))
        if membership.ready(joined):
            membership.meet(joined - membership.away)
            self._set_the_board()
            for rank in membership.members:
                self._door.send(rank, messages.pack_begin())
        telemetry = self.account.telemetry
        telemetry.joined, telemetry.generation = len(joined), membership.generation
        telemetry.waiting.members = len(joined - membership.away)
        telemetry.pace_s = {rank: self._board.piece_s[rank] for rank in joined}

    def _call(self, ranks: Iterable[int]) -> None:
        for rank in ranks:
            self._door.send(rank, messages.pack_regroup())

    @property
    def _paces(self) -> list[float]:
        """How long each of those who meet takes for a microbatch."""
        return [self._board.piece_s[rank] for rank in self._membership.members]

    def _pass_by_stragglers(self) -> None:
        """Calls all out where some hold them up in the middle of a microbatch; goes on without those once the others
        are out."""
        membership, joined = self._membership, self._door.joined
        there = joined - membership.away
        if there:
            working_since = self._board.working_since()
            # Who is back, or new, has nothing to do until it meets the others.
            since = {rank: working_since[rank] if rank in membership.members else 0.0 for rank in there}
            in_hand = {rank: self._board.in_hand(rank) for rank in there if since[rank]}
            counts = {rank: len(microbatches) for rank, microbatches in in_hand.items()}
            slow = self._speculation.stragglers(since, counts, self._paces, perf_counter())
            done = {rank for rank, some in in_hand.items() if some and all(map(self._places.offered, some))}
            if slow:
                self._call(membership.call(joined, held_up=True))
            if membership.awaited and membership.awaited <= slow | done:
                for rank in membership.awaited:
                    self._leave_out(rank, since[rank])
        self._judge_copies()

    def _leave_out(self, rank: int, since: float) -> None:
        if not take_up(self._permits[rank]):
            return  # it is done just now, or knows already that what it does counts no more
        step = self._board.version
        rows = {m: self._vectors.gradient_row(step, m) for m in self._board.in_hand(rank)}
        copies = {(step, m) for m in rows if not self._places.offered(m)}
        if not self._places.keep(rank, rows):
            return  # no room for copies: it is waited for
        self._membership.leave_out(rank)
        self._left_out[rank] = since
        others = len(self._door.joined.intersection(self._membership.members) - self._membership.away)
        with self.account.telemetry.lock:
            self.account.telemetry.waiting.held_up(rank, others * (perf_counter() - since))
        self._copies |= copies
        self._speculation.gave(len(copies))

    def _judge_copies(self, used: Container[tuple[int, int]] = ()) -> None:
        """Which of them were whole first; `used`: of which steps and microbatches what the slow worker had was used."""
        for copy in sorted(self._copies):
            if copy in used or self._board.version > copy[0]:
                self._copies.remove(copy)
                self._speculation.ended(won=copy not in used)
        telemetry = self.account.telemetry
        telemetry.copies_given, telemetry.copies_won = self._speculation.given, self._speculation.won

    def _on_computed(self, rank: int, message: Computed) -> None:
        """One that was left out has its gradient after all."""
        step, m, board = message.step, message.microbatch, self._board
        if step == board.version and board.done[m] <= step and not self._places.offered(m):
            self._places.offer(rank, m, self._vectors.gradient_row(step, m), message.loss)
        else:
            self.account.telemetry.pushed(Verdict.LATE)

    def _settle_offers(self) -> None:
        """Uses what those who were left out have computed, where nobody else has."""
        board, step = self._board, self._board.version
        microbatches = range(self._plan.microbatches)
        offered = list(filter(self._places.offered, microbatches))
        wanted = {m: self._vectors.gradient_row(step, m) for m in microbatches if board.done[m] <= step}
        used = self._places.settle(wanted)
        for m, loss in used.items():
            board.losses[m], board.done[m] = loss, step + 1
        self._judge_copies({(step, m) for m in used})
        if late := len(offered) - len(used):
            self.account.telemetry.pushed(Verdict.LATE, pushes=late)
        board.move(self._places.of_rows)
        self._vectors.places = list(self._places.of_rows)

    def _set_the_board(self) -> None:
        """For those who will meet: nobody else writes now. Those who met may have been anywhere in a step."""
        board, spec, members = self._board, self._step, self._membership.members
        version = board.version
        if board.outcome is not Outcome.NOT_FINITE:
            outcome = spec.outcome(version, stop_asked=board.stop_asked)
            evaluate = outcome is not Outcome.STOPPED and version > self._first and spec.evaluates(version)
            board.mend(outcome, evaluate=evaluate and not self.account.knows_evaluation(version))
        self._settle_offers()
        for rank in members:
            take_up(self._permits[rank])
        # The update comes over some of the gradients.
        lost = self._plan.overwritten if board.pushed else ()
        missing = [m for m, step in enumerate(board.done) if step <= version or m in lost]
        board.seat(members, perf_counter())
        deal(self._hands, board, members, missing)
        self._rendezvous.reset(len(members))
        self._catch_up()
        if spec.saves(version):
            self._copy(version)

    def _catch_up(self) -> None:
        """Counts the versions that nobody told of: those who made them are gone."""
        first = self.account.telemetry.steps + 1
        if self._board.version >= first:
            self.account.stepped(first, *self._board.history(first).T)

    def _on_record(self, rank: int, record: bytes | Gone) -> None:
        if isinstance(record, Gone):
            self._membership.gone(rank)
            self._back(rank)
            return
        message = messages.unpack_from_worker(record)
        if isinstance(message, Evaluated):
            self.account.evaluated(message)
        elif isinstance(message, CopyAsked):
            self._copy(message.version)
        elif isinstance(message, Left):
            self._membership.leaves(rank)
        elif isinstance(message, Regrouped):
            self._membership.out(rank)
            self._back(rank)
        elif isinstance(message, Computed):
            self._on_computed(rank, message)
        elif isinstance(message, Broke):
            raise WorkerError(f"worker {rank} is gone: it raised an exception")
        elif isinstance(message, np.ndarray) and (message["rank"] == rank).all():
            self._on_steps(message)
        else:
            raise ProtocolError(f"expected step records of worker {rank}; found a message that is none of its own")

    def _back(self, rank: int) -> None:
        """One that was left out, if it was, writes nothing more."""
        self._left_out.pop(rank, None)
        self._places.back(rank)

    def _on_steps(self, records: NDArray[np.void]) -> None:
        telemetry = self.account.telemetry
        telemetry.heard(records)
        telemetry.skipped = self._board.skipped
        self._leases.heard(records)
        dealt = len(share(self._plan.microbatches, *self._membership.place(int(records["rank"][0]))))
        telemetry.taken_over += int(np.maximum(records["microbatches"].astype(np.int64) - dealt, 0).sum())
        telemetry.pushed(Verdict.ACCEPTED, pushes=int(records["microbatches"].sum()))
        # A step counts once, with the first worker that tells of it.
        new = records[records["step"] >= telemetry.steps]
        if len(new):
            first = int(new["step"][0]) + 1
            self.account.stepped(first, new["loss"], new["gradient_norm"], new["published_s"])

    # Checkpoints

    def _copy(self, version: int) -> None:
        """Begins a checkpoint of `version`, which lies still until the board says that there is a copy."""
        if version <= self._board.copied:
            return
        if version != self._board.version or self._saver is None:
            raise ProtocolError(f"expected a copy of version {self._board.version} to be asked for; found {version}")
        if self._saver.busy:
            self._saver.skip()
        else:
            self._save(version)
        self._board.copy_made(version)
        os.eventfd_write(self._copy_made, 1)

    def _save_after_an_error(self) -> None:
        """The newest version, once no worker does anything any more: however far they were, it is whole."""
        self._door.broadcast(messages.pack_stop())
        until = perf_counter() + STOP_S
        while self._door.joined - self._membership.away and perf_counter() < until:
            with suppress(ThalwegError):  # another one raised, or talks nonsense
                for rank, record in self._door.receive(until - perf_counter()):
                    self._on_record(rank, record)
        if not self._door.joined - self._membership.away:
            self._save_last()

    def _save_last(self) -> None:
        """The checkpoint of the newest version, where nothing goes on from it."""
        board = self._board
        still = board.outcome in (Outcome.DONE, Outcome.STOPPED) or not self._door.joined - self._membership.away
        if self._saver is not None and still:
            self._save(board.version)

    def _save(self, version: int) -> None:
        saver, step = self._saver, self._step.steps_done(version)
        assert saver is not None
        state = self._vectors.state(version)
        copy = ShardState(
            begin=0,
            end=self.spec.layout.size,
            parameters=self.parameters(version).copy(),
            slots={slot.name: array.copy() for slot, array in zip(self._rule.slots, state, strict=True)},
            updates=version,
        )
        saver.save_shard(step, copy, host=0, then=lambda file: saver.commit(step, version, [file]))

    def _end_who_hangs(self) -> None:
        """Kills a worker that hangs: were it to wake up, it would write where others are at work by then."""
        since = dict(enumerate(self._board.working_since())) | self._left_out
        for rank, found in self._leases.hanging(since, perf_counter()).items():
            if rank in self._door.joined:
                self._hung[rank] = found
                self._door.kill(rank)

    def _non_finite(self) -> NonFiniteError:
        step = self._board.version
        skipped = self._board.skipped_in_a_row
        before = f"the {skipped} steps before were skipped; " if skipped else ""
        where = describe_non_finite(self.spec.layout, self._vectors.gradients(step), self._board.losses.tolist())
        return NonFiniteError(
            f"step {step}: {where}; {before}the learning rate was {self._learning_rate(step):g}. Nothing of this step "
            f"was published. {ADVICE}"
        )

    # What others read, from other threads

    def stop(self) -> None:
        """Ends the run with the next version; `serve` returns with `cancelled`. Nothing where it has ended."""
        with self._stopping:
            if self.account.running:
                self._stop_by = perf_counter() + STOP_S
                self._board.ask_to_stop()
                self._door.interrupt()

    def watch(self, rows_seen: int, timeout_s: float) -> Snapshot:
        """How far the run is; see `Account.watch`."""
        return replace(self.account.watch(rows_seen, timeout_s), hung=dict(self._hung))

    @property
    def version(self) -> int:
        """The newest whole version."""
        return self._board.version

    def weights(self) -> NDArray[np.float32]:
        """The newest version, flat, shape (layout.size,); valid after `serve` returned."""
        return self.parameters(self.version)

    def parameters(self, version: int) -> NDArray[np.float32]:
        """Where `version` lies, flat; whole until the next but one is published."""
        return self._vectors.version(version)


def _welcome(plan: MemoryPlan, workers: int, chunks: int) -> exchange_pb2.Welcome:
    """What one of at most `workers` is told when it joins."""
    return exchange_pb2.Welcome(
        size=plan.size, gradients=plan.microbatches, chunks=chunks, meet=True, workers=workers, slots=plan.slots
    )
