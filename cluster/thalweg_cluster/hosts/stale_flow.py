"""The way of a push where nobody waits for a step to be whole: ssp, async.

    the lead grants a worker a unit of work (step, microbatch)
      -> its host fetches what other hosts own of the parameters; the worker computes on a copy of them
      -> its gradient goes, block by block, to the owners; each applies a block at once
    all owners have applied it -> the lead is told, and may grant more

Rules:
  - The parameters in this host's memory are overwritten at any time: a worker's copy may have blocks of different age,
    none older than the version that was there when its unit was granted.
  - A worker that dies with a unit in hand has pushed nothing of it: the unit goes back to the lead, for whoever is
    free. What it has pushed is applied, and only then is the one in its place granted more: its gradient lies there.
  - A push is known by its step and microbatch. Each is applied once: by the hosts' own order, and for pushes from
    outside by name.
  - The rule counts a block's updates, not steps: so the bias corrections of adam hold.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from functools import partial

import grpc
import numpy as np
from numpy.typing import NDArray

from thalweg_cluster.checkpoints.state import TrainingState
from thalweg_cluster.consistency.verdict import Verdict
from thalweg_cluster.hosts.checks import FORMAT_NUMBERS, Refusal
from thalweg_cluster.hosts.encoding import GradientEncoder
from thalweg_cluster.hosts.events import OutsidePush, ParametersArrived, PartArrived
from thalweg_cluster.hosts.flow import HostView
from thalweg_cluster.hosts.in_hand import Part
from thalweg_cluster.hosts.readiness import Presence
from thalweg_cluster.rules import Block
from thalweg_proto.errors import ProtocolError
from thalweg_proto.formats import make_format
from thalweg_proto.messages import PartFinal, Work
from thalweg_proto.v1.coordination_pb2 import HostMessage, LeadMessage
from thalweg_proto.wire import Bytes

_EXACT = make_format("float32")
NAMES_KEPT = 10_000
"""How many names of pushes from outside are remembered; older ones are refused by their step."""


class StaleFlow:
    """One host's part."""

    VERSIONS = 1

    def __init__(self, view: HostView, start: TrainingState) -> None:
        """`start`: what the run goes on from."""
        self._view = view
        self._step = view.spec.step
        self._host = view.spec.host
        self._blocks = view.shards.blocks
        self._own = view.shards.owned_by(self._host)
        self._others = [i for i in range(len(self._blocks)) if i not in self._own] if view.ranks else []
        self._learning_rate = view.spec.step.learning_rate()
        self._updates = dict.fromkeys(self._own, start.updates)  # of each block
        self._units: dict[int, LeadMessage.Granted] = {}  # by rank
        self._refreshing: Counter[int] = Counter()  # by rank: how often what others own is being fetched
        self._owners = {self._blocks[i].owner for i in self._others}
        self._unanswered: dict[tuple[int, int], set[int]] = {}  # by push: the owners that have not applied it
        self._ranks: dict[tuple[int, int], int] = {}  # by push: whose it is
        self._missing: dict[tuple[int, int, int], set[int]] = {}  # by host and push: blocks of ours that are to come
        self._encoder = GradientEncoder(view.gradient_format, start.residuals(self._host))
        self._presence = Presence(self._blocks)  # of the last version
        self._last: LeadMessage.Last | None = None
        self._outside = OrderedDict.fromkeys(start.names.get(self._host, ()))
        self._forgotten = 0  # the highest step of a name that is not remembered any more
        self.version = start.version

    @property
    def gradients(self) -> int:
        return len(self._view.ranks)

    @property
    def spares(self) -> int:
        return 0  # nobody waits for a microbatch

    def copy(self, part: Part, rank: int) -> bool:
        return False

    def on_part_left(self, rank: int, part: Part) -> None:
        """Never: no unit is superseded."""

    def gradients_of(self, rank: int) -> range:
        index = rank - self._view.ranks.start
        return range(index, index + 1)

    def begin(self) -> None:
        """The lead grants the first units."""

    # From the lead

    def on_lead(self, message: LeadMessage) -> None:
        kind = message.WhichOneof("kind")
        if kind == "granted":
            self._granted(message.granted)
        elif kind == "evaluate":
            self.version = max(self.version, message.evaluate.version)
            self._view.workers.evaluate(message.evaluate.version)
        elif kind == "save":
            self._save(message.save.version, final=False, replica=message.save.replica)
            self._view.to_lead(HostMessage(copied=HostMessage.Copied(version=message.save.version)))
        elif kind == "last":
            self._end(message.last)

    def _save(self, version: int, *, final: bool, replica: bool = False) -> None:
        """Nothing is under way, here or elsewhere."""
        self.version = version
        # All blocks have had the same number of updates: those of units went to all of a shard, and so did those from
        # outside.
        updates = max(self._updates.values(), default=0)
        residuals = self._encoder.residuals
        names = self._outside
        self._view.save(version, updates=updates, residuals=residuals, names=names, final=final, replica=replica)

    def _granted(self, unit: LeadMessage.Granted) -> None:
        self.version = max(self.version, unit.version)
        if unit.rank not in self._view.workers.in_hand.living:  # it went while this was on its way
            self._return(unit.rank)
            return
        self._units[unit.rank] = unit
        if self._owners:
            self._refreshing[unit.rank] += 1
            self._view.refresh(unit.rank)
        else:
            self._compute(unit)

    def on_refreshed(self, rank: int) -> None:
        """What other hosts own is newer than the grant of this worker's unit: it may compute."""
        self._refreshing[rank] -= 1
        # One may still be under way that was for a worker that is gone: it began before this unit was granted.
        if rank in self._units and not self._refreshing[rank]:
            self._compute(self._units[rank])

    def _compute(self, unit: LeadMessage.Granted) -> None:
        rank, part = unit.rank, unit.microbatch
        [gradient] = self.gradients_of(rank)
        self._view.workers.send(rank, Work(unit.step, unit.version, part, part + 1, gradient, self._view.size))

    def on_joined(self, rank: int) -> None:
        """The lead grants it a unit."""

    def on_gone(self, rank: int, parts: list[Part]) -> list[Part]:
        if self._units.pop(rank, None) is not None:
            self._return(rank)
        return []

    def on_dealt(self, rank: int, parts: list[Part]) -> None:
        """Never with parts: the lead deals them out."""

    def _return(self, rank: int) -> None:
        self._view.to_lead(HostMessage(returned=HostMessage.Returned(rank=rank)))

    def _end(self, last: LeadMessage.Last) -> None:
        """Nothing is computed any more: the owners send out, exactly, what the parameters are."""
        self._last = last
        self._save(last.version, final=True)
        for index in self._own:
            self._publish(index, last.version)
            self._presence.there(index)
        self._finish_if_whole()

    def _finish_if_whole(self) -> None:
        if self._last is not None and (self._presence.whole or not self._view.ranks):
            self._view.to_lead(HostMessage(whole=HostMessage.Whole(version=self.version)))
            self._view.workers.finish(self.version, evaluate=self._last.evaluate)

    # From this host's workers

    def on_final(self, rank: int, message: PartFinal) -> None:
        """A worker's gradient is whole."""
        unit = self._units.pop(rank, None)
        if unit is None or (unit.step, unit.microbatch) != (message.step, message.part):
            raise ProtocolError(f"expected a push of worker {rank}'s unit; found {message}")
        pushed = HostMessage.Pushed(step=message.step, part=message.part, loss=message.loss, rank=rank)
        self._view.to_lead(HostMessage(pushed=pushed))
        name = (message.step, message.part)
        self._view.workers.in_hand.done(rank, Part(*name))
        gradient = self._view.vectors.gradients[rank - self._view.ranks.start]
        self._ranks[name] = rank
        self._unanswered[name] = set(self._owners)
        for index in self._others:
            begin, end, owner = self._blocks[index]
            self._view.push(owner, (begin,), partial(self._pack, index, unit, gradient[begin:end]))
        for index in self._own:
            begin, end, _ = self._blocks[index]
            self._apply(index, unit.step, unit.step - unit.version, gradient[begin:end])
        self._done_if_answered(name)

    def _pack(self, index: int, unit: LeadMessage.Granted, gradient: Block) -> list[Bytes]:
        return self._view.pack(
            index,
            step=unit.step,
            version=unit.version,
            part_begin=unit.microbatch,
            part_end=unit.microbatch + 1,
            format=FORMAT_NUMBERS[self._view.gradient_format.name],
            data=self._encoder.encode(str(index), gradient),
        )

    def on_answered(self, owner: int, step: int, part: int) -> None:
        """An owner has applied its part of a push of this host's."""
        if owner not in self._unanswered.get((step, part), ()):
            raise ProtocolError(f"step, part_begin: host {owner} answered ({step}, {part}), which waits for no answer")
        self._unanswered[step, part].discard(owner)
        self._done_if_answered((step, part))

    def _done_if_answered(self, name: tuple[int, int]) -> None:
        if not self._unanswered[name]:
            del self._unanswered[name]
            self._view.to_lead(HostMessage(applied=HostMessage.Applied(rank=self._ranks.pop(name))))

    # At the owner of a block

    def room_for_part(self, host: int, step: int, parts: tuple[int, int], index: int) -> NDArray[np.float32]:
        if parts[1] != parts[0] + 1:
            raise ProtocolError(f"part_begin, part_end: expected one microbatch; found [{parts[0]}, {parts[1]})")
        begin, end, _ = self._blocks[index]
        # Several workers of a host may push at the same time: each block has memory of its own.
        return np.empty(end - begin, dtype=np.float32)

    def on_part(self, event: PartArrived) -> None:
        name = (event.host, event.step, event.parts[0])
        missing = self._missing.setdefault(name, set(self._own))
        if event.block not in missing:
            begin, end, _ = self._blocks[event.block]
            raise ProtocolError(
                f"begin, end: expected a block that is new in step {event.step}, part {event.parts[0]} of host "
                f"{event.host}; found [{begin}, {end}) again"
            )
        missing.remove(event.block)
        self._apply(event.block, event.step, event.step - event.version, event.gradient)
        if not missing:
            del self._missing[name]
            self._view.answer(event.host, event.step, event.parts[0])

    def _apply(self, index: int, step: int, staleness: int, gradient: Block) -> None:
        """Applies a block of a push, and shows it to this host's workers; the gradient is overwritten."""
        view, begin = self._view, self._blocks[index].begin
        view.faults.at("apply.before", step)
        rate = self._learning_rate(step)
        if self._step.staleness_scaling:
            rate /= 1 + staleness
        view.shard.set_aside(begin, gradient)
        update = view.shard.block_update(self._updates[index], rate)
        self._updates[index] += 1
        if view.shard.apply(begin, gradient, update):
            view.faults.at("apply.after", step)
            view.faults.at("publish.before", step)
            view.vectors.version(0)[begin : begin + len(gradient)] = gradient
            view.faults.at("publish.after", step)
        else:
            view.not_finite(step, begin, gradient)

    def _publish(self, index: int, version: int) -> None:
        """Sends what is newest of a block to all hosts, exactly; it will not change any more."""
        begin, end, _ = self._blocks[index]
        first = self._view.shards.bounds[self._host][0]
        data = _EXACT.encode(self._view.shard.parameters[begin - first : end - first], None)
        make = partial(
            self._view.pack, index, step=version, version=version, format=FORMAT_NUMBERS[_EXACT.name], data=data
        )
        self._view.publish((version, begin), make)

    @property
    def compression_error(self) -> float:
        return self._encoder.error_norm

    def on_outside(self, push: OutsidePush) -> None:
        """A gradient of somebody who is no host of the job: applied at once, where its name is new."""
        refusal = self._refusal(push)
        if refusal is not None:
            push.refuse(*refusal)
            return
        name = (push.step, push.parts[0])
        if name in self._outside or push.step < self._forgotten:
            push.answer(Verdict.DUPLICATE if name in self._outside else Verdict.LATE)
            return
        self._outside[name] = None
        if len(self._outside) > NAMES_KEPT:
            self._forgotten = max(self._forgotten, self._outside.popitem(last=False)[0][0] + 1)
        first = self._view.shards.bounds[self._host][0]
        for index in self._own:
            begin, end, _ = self._blocks[index]
            self._apply(index, push.step, self.version - push.version, push.gradient[begin - first : end - first])
        push.answer(Verdict.ACCEPTED)

    def _refusal(self, push: OutsidePush) -> Refusal | None:
        """Why a push from outside may not come in."""
        if self._last is not None:
            return Refusal(grpc.StatusCode.UNAVAILABLE, "the run has ended: its last version is there")
        begin, end = push.parts
        if begin < self._step.microbatches or end != begin + 1:
            details = (
                f"part_begin, part_end: expected one part, from {self._step.microbatches} on, since lower ones are the "
                f"job's own microbatches; found [{begin}, {end})"
            )
            return Refusal(grpc.StatusCode.INVALID_ARGUMENT, details)
        if push.step >= self._step.steps:
            expected = f"at most {self._step.steps - 1}, the job's last"
            return Refusal(grpc.StatusCode.INVALID_ARGUMENT, f"step: expected {expected}; found {push.step}")
        bound = self._step.staleness if self._step.consistency == "ssp" else None
        least = 0 if bound is None else max(0, self.version - bound)
        if not least <= push.version <= self.version:
            details = f"version: expected {least} to {self.version}; found {push.version}"
            return Refusal(grpc.StatusCode.FAILED_PRECONDITION, details)
        return None

    # The last version

    def room_for_parameters(self, version: int, index: int) -> NDArray[np.float32]:
        begin, end, _ = self._blocks[index]
        row: NDArray[np.float32] = self._view.vectors.version(0)[begin:end]
        return row

    def on_parameters(self, event: ParametersArrived) -> None:
        self._presence.there(event.block)
        self._finish_if_whole()
