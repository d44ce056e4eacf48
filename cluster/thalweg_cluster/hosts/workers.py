"""The workers of one host, as its server has them: who is there, what each has in hand, who hangs, who is slow.

    Unix socket - what workers say --> Workers --> the flow: what is final; the lead: who came, went, hung
                                          |
    the flow, the lead - what is to do ---'------> Work, Ready, Evaluate, Finish on the Unix socket

Rules:
  - A worker that dies leaves what it had in hand to the others of its host, or to the one that takes its place
    (in_hand.py); one that hangs is killed first.
  - All of it is called by the thread that decides (server.py), but for `interrupt`.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable
from itertools import cycle
from time import perf_counter

import numpy as np

from thalweg_cluster.hosts.flow import Flow
from thalweg_cluster.hosts.in_hand import Chunk, InHand, Part, Piece, runs
from thalweg_cluster.hosts.spec import ServedSpec
from thalweg_cluster.server.door import Door, Gone
from thalweg_cluster.server.leases import Leases
from thalweg_cluster.server.speculation import LOOK_S, Speculation
from thalweg_cluster.server.telemetry import Telemetry
from thalweg_proto import messages
from thalweg_proto.errors import ProtocolError, WorkerError
from thalweg_proto.messages import Broke, Evaluate, Evaluated, Left, PartFinal, PartLeft, Ready, Work
from thalweg_proto.shared_memory import ServedPlan, reserve
from thalweg_proto.shares import share
from thalweg_proto.v1 import exchange_pb2
from thalweg_proto.v1.coordination_pb2 import HostMessage

REPLACE_S = 300.0
"""How long a host may be without a worker until another one has joined; then the run ends."""


class Workers:
    """Those of one host.

    in_hand:  what each is to do
    ready:    all have joined once
    began:    they were told to begin
    finished: they were told that nothing is left to do
    """

    def __init__(
        self,
        spec: ServedSpec,
        plan: ServedPlan,
        segment: int,
        flow: Flow,
        *,
        telemetry: Telemetry,
        to_lead: Callable[[HostMessage], object],
    ) -> None:
        """`segment`: the memory of `plan`, which is handed to each that joins. Raises what Door does."""
        self.in_hand = InHand()
        self.ready = self.began = self.finished = False
        self._spec, self._flow, self._telemetry, self._to_lead = spec, flow, telemetry, to_lead
        self._ranks = spec.topology.ranks[spec.host]
        self._plan, self._segment = plan, os.dup(segment)  # the door closes the one that it hands over
        self._door = Door(
            spec.address,
            job_id=spec.job_id,
            layout=spec.layout,
            ranks=self._ranks,
            welcome=lambda _: _welcome(plan),
            fds=[segment],
        )
        self._leases = Leases(spec.lease_s)
        self._speculation = Speculation()
        self._hung: dict[int, str] = {}  # why some were killed, by rank
        self._looked_s, self._look_s = 0.0, LOOK_S  # when it was looked who hangs or is slow, and how soon again
        self._workerless_s = math.inf  # since when
        self._finishing = self._stopped = False  # they will be let go once all is evaluated; they were told to stop
        chunks = [share(spec.step.chunks, rank, spec.topology.workers) for rank in self._ranks]
        self._chunks = range(chunks[0].start, chunks[-1].stop) if chunks else range(0)  # that this host evaluates

    # What they say

    def hear(self, patience_s: float) -> None:
        """Takes in what they say, and who has joined or gone; waits for it for `patience_s` at most."""
        for rank, record in self._door.receive(min(patience_s, self._look_s)):
            self._on_record(rank, record)
        self._on_joined()

    def interrupt(self) -> None:
        """Ends the waiting of `hear`; from any thread."""
        self._door.interrupt()

    def _on_record(self, rank: int, record: bytes | Gone) -> None:
        if isinstance(record, Gone):
            self._on_gone(rank)
            return
        self.in_hand.said(rank, perf_counter())
        message = messages.unpack_from_worker(record)
        if isinstance(message, PartFinal):
            self._flow.on_final(rank, message)
        elif isinstance(message, PartLeft):
            self._flow.on_part_left(rank, Part(message.step, message.part))
        elif isinstance(message, Evaluated):
            if not self.in_hand.done(rank, Chunk(message.version, message.chunk)):
                raise ProtocolError(f"chunk: expected one that worker {rank} has in hand; found {message}")
            self._to_lead(HostMessage(evaluated=HostMessage.Evaluated(**message._asdict())))
        elif isinstance(message, Left):
            self._door.left(rank)
        elif isinstance(message, Broke):
            raise WorkerError(f"worker {rank} is gone: it raised an exception")
        elif isinstance(message, np.ndarray) and (message["rank"] == rank).all():
            self._leases.heard(message)
            self._speculation.heard(message)
            self._to_lead(HostMessage(records=HostMessage.Records(records=record)))
        else:
            raise ProtocolError(f"expected step records of worker {rank}; found some of another worker")

    def _on_joined(self) -> None:
        """Takes note of who has joined, all at once or later, in the place of one that is gone."""
        joined = self._door.joined
        self._telemetry.joined = len(joined)
        for rank in sorted(joined.difference(self.in_hand.living)):
            self.in_hand.joined(rank)
            self._hung.pop(rank, None)
            self._workerless_s = math.inf
            if self.ready:
                self._to_lead(HostMessage(came=HostMessage.Came(rank=rank)))
            if self.began:
                self._door.send(rank, messages.pack_begin())
                self._flow.on_joined(rank)
                self.deal(())
            if self.finished:
                self._door.send(rank, messages.pack_finish())
        if self._door.full and not self.ready:
            self.ready = True
            self._to_lead(HostMessage(ready=HostMessage.Ready()))

    def _on_gone(self, rank: int) -> None:
        """The process of a worker has ended. What it wrote is whole, as far as it has told of it."""
        pieces = self.in_hand.gone(rank)
        if not self.in_hand.living:
            self._workerless_s = perf_counter()
        if self.ready:
            self._to_lead(HostMessage(gone=HostMessage.Gone(rank=rank)))
        parts = [piece for piece in pieces if isinstance(piece, Part)]
        chunks = [piece for piece in pieces if isinstance(piece, Chunk)]
        self.deal([*chunks, *self._flow.on_gone(rank, parts)])

    @property
    def deserted(self) -> bool:
        """Whether all have left, but those that are still at what others have done."""
        return self._door.deserted(but=filter(self.in_hand.away, self.in_hand.living))

    # What they are told

    def begin(self) -> None:
        self.began = True
        self._door.broadcast(messages.pack_begin())

    def deal(self, pieces: Iterable[Piece]) -> None:
        for rank, some in self.in_hand.deal(pieces).items():
            of_version: dict[int, list[int]] = {}
            for piece in some:
                if isinstance(piece, Chunk):
                    of_version.setdefault(piece.version, []).append(piece.chunk)
            for version, numbers in of_version.items():
                self.in_hand.give(rank, (Chunk(version, chunk) for chunk in numbers), version, perf_counter())
                for run in runs(numbers):
                    self._door.send(rank, messages.pack_evaluate(Evaluate(version, run.start, run.stop)))
            self._flow.on_dealt(rank, [piece for piece in some if isinstance(piece, Part)])

    def send(self, rank: int, message: Work | Ready) -> None:
        if isinstance(message, Work):
            parts = [Part(message.step, part) for part in range(message.begin, message.end)]
            self.in_hand.give(rank, parts, message.version, perf_counter())
        self._door.send(rank, _packed(message))

    def broadcast(self, message: Ready) -> None:
        self._door.broadcast(_packed(message))

    def evaluate(self, version: int) -> None:
        self.deal(Chunk(version, chunk) for chunk in self._chunks)

    def finish(self, version: int, *, evaluate: bool) -> None:
        self.in_hand.drop_parts()
        if evaluate:
            self.evaluate(version)
        self._finishing = True

    def let_go(self) -> None:
        """Tells them when nothing is left to do."""
        if self._finishing and not self.finished and self.in_hand.empty:
            self.finished = True
            self._door.broadcast(messages.pack_finish())

    def stop(self) -> None:
        self._stopped = True
        self._door.broadcast(messages.pack_stop())

    def close(self) -> None:
        """Ends all connections."""
        self.stop()
        self._door.close()
        os.close(self._segment)

    # Who hangs, who is slow

    def look(self, now: float) -> None:
        """Looks after them, where it is time to."""
        if now - self._looked_s > self._look_s:
            self._looked_s = now
            self._end_who_hangs(now)
            self._copy_what_is_slow(now)
            self._look_s = self._speculation.look_s(self._speculation.paces_s)

    def _end_who_hangs(self, now: float) -> None:
        """Kills who hangs: were it to wake up, it would write where others are at work by then."""
        spec, version = self._spec, self._flow.version
        self.in_hand.whole(version, now)
        for rank, found in self._leases.hanging(self.in_hand.working_since, now).items():
            if rank not in self._hung:
                self._hung[rank] = found
                self._to_lead(HostMessage(hung=HostMessage.Hung(rank=rank, found=found)))
            self._door.kill(rank)
        if now - self._workerless_s > REPLACE_S and not (self.finished or self._stopped):
            raise WorkerError(
                f"host {spec.host} has no worker at step {spec.step.steps_done(version)}: all of {list(self._ranks)} "
                f"are gone, and none took their place within {REPLACE_S:g} s"
            )

    def _copy_what_is_slow(self, now: float) -> None:
        """Where all wait for some that are in the middle of a part, others compute it, too."""
        in_hand, working = self.in_hand, self.in_hand.working_since
        hands = {rank: in_hand.hand(rank) for rank in in_hand.there}
        idle = [rank for rank, hand in hands.items() if not hand]
        if not self._flow.spares or not idle or any(hand and rank not in working for rank, hand in hands.items()):
            return  # who has something, and is not at it, waits for parameters: the step is over
        parts = {rank: [piece for piece in hand if isinstance(piece, Part)] for rank, hand in hands.items()}
        at_parts = {rank: 1 for rank, some in parts.items() if some and len(some) == len(hands[rank])}
        since = {rank: working.get(rank, 0.0) for rank in hands}
        slow = self._speculation.stragglers(since, at_parts, self._speculation.paces_s, now)
        others = cycle(idle)
        for rank in sorted(slow):
            alone = [part for part in parts[rank] if len(in_hand.holders(part)) == 1]
            given = sum(self._flow.copy(part, other) for part, other in zip(alone, others, strict=False))
            if given:
                self._speculation.gave(given)
                waited_s = len(idle) * (now - since[rank])
                self._to_lead(HostMessage(copies=HostMessage.Copies(given=given, rank=rank, waited_s=waited_s)))

    def reserve(self, gradient: int) -> bool:
        return reserve(self._segment, self._plan.row_of(gradient), self._plan.size)

    def copy_ended(self, *, won: bool) -> None:
        self._speculation.ended(won=won)
        self._to_lead(HostMessage(copies=HostMessage.Copies(won=int(won))))

    def came_late(self) -> None:
        self._to_lead(HostMessage(copies=HostMessage.Copies(late=1)))


def _welcome(plan: ServedPlan) -> exchange_pb2.Welcome:
    """What each worker is told when it joins."""
    return exchange_pb2.Welcome(
        size=plan.size, gradients=plan.gradients, versions=plan.versions, slots=plan.slots, spares=plan.spares
    )


def _packed(message: Work | Ready) -> bytes:
    return messages.pack_ready(message) if isinstance(message, Ready) else messages.pack_work(message)
