"""The way of a step where all hosts wait for each other: sync, backup workers, local steps.

    a worker's gradient is final from element e on
      -> each block that is final in all gradients of this host is summed along the tree
      -> and goes to its owner, or stays where this host owns it
    all parts of a block are with its owner
      -> [the norm of all shards, where it is clipped or skipped] -> rule -> the block of version t + 1, here and to all
         hosts
    the first blocks of version t + 1 are here -> the workers begin step t + 1 with what is there
    all are here -> version t + 1 is whole

Rules:
  - No block waits for another. While the backward pass computes the first layer's gradient, the last layer's is on
    the wire, summed, updated, and on its way back.
  - A worker writes a gradient of step t + 1 only when version t + 1 is whole on its host. So all that was sent of step
    t has arrived; each buffer has one use at a time, and two versions have room in memory.
  - Where a worker dies, what it has told of stays: it may be summed, and on its way. Another one computes the rest of
    that gradient, and writes nothing but that.
  - A part that a slow worker is in the middle of may be given to another one, too: its gradient goes to a place of its
    own. What is whole first is used; what the slow worker has told of before is the same, and may be summed already.
  - With backup workers and local steps each part has one worker, for good: one that is late may still write its
    gradient when the next step has begun.
  - Nothing that is not finite is published: the run halts; or, where the job says so, the owners publish what they had.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thalweg_cluster.checkpoints.state import TrainingState
from thalweg_cluster.consistency.verdict import Verdict
from thalweg_cluster.hosts.checks import FORMAT_NUMBERS
from thalweg_cluster.hosts.encoding import GradientEncoder
from thalweg_cluster.hosts.events import OutsidePush, ParametersArrived, PartArrived
from thalweg_cluster.hosts.flow import HostView
from thalweg_cluster.hosts.in_hand import Part, runs
from thalweg_cluster.hosts.readiness import Finals, Presence
from thalweg_cluster.hosts.saving import skipped
from thalweg_cluster.hosts.shard import squares
from thalweg_cluster.hosts.spec import Parts
from thalweg_cluster.rules import Block
from thalweg_cluster.summation import Range, SumPlan, microbatch_leaves, sum_plan, tree_sum
from thalweg_proto.errors import ProtocolError
from thalweg_proto.formats import make_format
from thalweg_proto.messages import PartFinal, Ready, Work
from thalweg_proto.shared_memory import CHUNK
from thalweg_proto.v1.coordination_pb2 import HostMessage, LeadMessage
from thalweg_proto.wire import Bytes

_EXACT = make_format("float32")


class BarrierFlow:
    """One host's part."""

    VERSIONS = 2

    def __init__(self, view: HostView, start: TrainingState) -> None:
        """`start`: what the run goes on from."""
        spec = view.spec
        self._view = view
        self._step = spec.step
        self._host = spec.host
        self._parts = Parts.of(spec.topology, spec.step)
        self._mine = self._parts.of_host[self._host]
        self._blocks = view.shards.blocks
        self._own = view.shards.owned_by(self._host)
        self._learning_rate = spec.step.learning_rate()
        self._weights = spec.step.weights()
        self._own_parts = spec.step.backup > 0 or spec.step.local_steps > 1
        self._last = spec.step.versions
        self._replicated = -1  # the version of which there is to be a replica, or was
        self.version = start.version
        self._finals = Finals(self._blocks, len(self._mine)) if self._mine else None
        if self._mine:
            self._presence = Presence(self._blocks)
        else:
            self._presence = Presence(self._blocks[self._own.start : self._own.stop], self._own.start)
        # Where in memory each gradient is; a copy of it goes to the one of two places that it is not at.
        self._places = list(range(len(self._mine)))
        self._writing: dict[tuple[int, Part], int] = {}  # by rank: where it writes a part of which there is a copy
        self._absent: dict[int, list[Part]] = {}  # where each part has one worker: of those who are not there, by rank
        self._announced = self.version  # the newest version of which the workers have heard
        self._whole_blocks = dict.fromkeys(self._own, self.version)  # which step each is summed for
        self._arrived = dict.fromkeys(self._own, 0)  # parts from other hosts
        self._local = dict.fromkeys(self._own, not self._mine)
        self._members: list[int] | None = None  # with backup workers: of the step that was closed last
        self._closed = self.version - 1  # which step that is
        self._set_leaves()
        self._encoder = GradientEncoder(view.gradient_format, start.residuals(self._host))
        scratch = (self._parts.total.bit_length(), max(b.end - b.begin for b in self._blocks))
        self._scratch = np.empty(scratch, dtype=np.float32)
        self._squares: dict[int, list[float]] = {}  # by block, of the step
        self._summed: dict[int, Block] = {}  # by block, where they wait for the norm
        self._factor: float | None = None

    # Which sums make up a step

    def _set_leaves(self) -> None:
        """Without backup workers the leaves are always the same: the nodes of the tree that each host has whole."""
        hosts = range(self._view.spec.topology.hosts)
        self._leaves: list[tuple[int, Range]] = [(h, leaf) for h in hosts for leaf in self._parts.leaves(h)]
        begin, end = self._view.shards.bounds[self._host]
        others = [(h, leaf) for h, leaf in self._leaves if h != self._host]
        self._own_leaves = [leaf for h, leaf in self._leaves if h == self._host]
        if self._step.backup:  # each host hands on one sum, under its own number
            self._own_leaves = [(self._host, self._host + 1)]
            others = [(h, (h, h + 1)) for h in hosts if h != self._host and self._parts.of_host[h]]
        self._incoming = {key: np.empty(end - begin, dtype=np.float32) for key in others}
        # Of each block: the step of what came last.
        self._newest = {key: dict.fromkeys(self._own, -1) for key in others}
        self._needed = len(others)
        self._plan: SumPlan | None = None if self._step.backup else sum_plan(tuple(leaf for _, leaf in self._leaves))

    def begin(self) -> None:
        """The first version is there, whole."""
        self._announce(self.version)
        self._ready(self.version, self._view.size)

    def _announce(self, version: int) -> None:
        """Tells the workers what to compute on `version`, whose first elements are there."""
        self._announced, self._absent = version, {}
        if version >= self._last:
            return
        workers = self._view.workers
        workers.in_hand.drop_parts()  # with backup workers some may be left, which are late
        if self._step.evaluates(version):
            workers.evaluate(version)
        if self._own_parts:
            own = self._parts.of_rank
            self._absent = {rank: [Part(version, part) for part in own[rank]] for rank in self._view.ranks}
            for rank in workers.in_hand.living:
                self.on_dealt(rank, self._absent.pop(rank))
        else:
            workers.deal(Part(version, part) for part in self._mine)

    def _ready(self, version: int, end: int) -> None:
        self._view.workers.broadcast(Ready(version, end))

    def on_joined(self, rank: int) -> None:
        whole = self._announced == self.version
        self._view.workers.send(rank, Ready(self._announced, self._view.size if whole else self._presence.end))
        self.on_dealt(rank, self._absent.pop(rank, []))

    def on_gone(self, rank: int, parts: list[Part]) -> list[Part]:
        if not self._own_parts:
            self._writing = {key: place for key, place in self._writing.items() if key[0] != rank}
            return parts
        self._absent[rank] = parts
        return []

    def on_part_left(self, rank: int, part: Part) -> None:
        self._view.workers.in_hand.late(rank, part)
        self._writing.pop((rank, part), None)

    def on_dealt(self, rank: int, parts: list[Part]) -> None:
        """All are of the newest step."""
        until_of = {part.part: self._until(part) for part in parts}
        begun = [(range(part, part + 1), until) for part, until in until_of.items() if until < self._view.size]
        rest = [part for part, until in until_of.items() if until == self._view.size]
        for some, until in [*begun, *((run, self._view.size) for run in self._adjacent(rest))]:
            self._work(rank, some, self._places[some.start - self._mine.start], until)

    def _work(self, rank: int, parts: range, gradient: int, until: int) -> None:
        step = self._announced
        self._view.workers.send(rank, Work(step, step, parts.start, parts.stop, gradient, until))

    def _adjacent(self, parts: list[int]) -> Iterator[range]:
        """Ascending parts as ranges whose gradients lie one after the other."""
        shift = {part: self._places[part - self._mine.start] - part for part in parts}
        for _, some in groupby(parts, key=shift.__getitem__):
            yield from runs(list(some))

    def copy(self, part: Part, rank: int) -> bool:
        if self._own_parts or part.step != self.version:
            return False
        place, count = self._places[part.part - self._mine.start], len(self._mine)
        spare = place + count if place < count else place - count
        if spare in self._writing.values() or not self._view.workers.reserve(spare):
            return False
        self._writing |= {(holder, part): place for holder in self._view.workers.in_hand.holders(part)}
        self._writing[rank, part] = spare
        self._work(rank, range(part.part, part.part + 1), spare, self._view.size)
        return True

    def _settle(self, rank: int, part: Part) -> None:
        """A part is whole, of which there was a copy: it is where this worker wrote it."""
        gradient = part.part - self._mine.start
        assert self._finals is not None
        before, place, told = self._places[gradient], self._writing.pop((rank, part)), self._finals.begin(gradient)
        if place != before:
            # What the slow worker had told of may be summed, in its place.
            gradients = self._view.vectors.gradients
            gradients[place][told:] = gradients[before][told:]
            self._places[gradient] = place
        self._view.workers.copy_ended(won=place != before)

    def _until(self, part: Part) -> int:
        """Only the elements [0, until) of a gradient are still to be computed."""
        if self._finals is None or part.step != self.version:
            return self._view.size  # the next step, of which nothing is there
        return self._finals.begin(part.part - self._mine.start)

    # From this host's workers

    def gradients_of(self, rank: int) -> range:
        """Which gradients of this host's memory are a worker's."""
        parts = self._parts.of_rank[rank]
        return range(parts.start - self._mine.start, parts.stop - self._mine.start)

    @property
    def gradients(self) -> int:
        return len(self._mine)

    @property
    def spares(self) -> int:
        return 0 if self._own_parts else len(self._mine)

    def on_final(self, rank: int, message: PartFinal) -> None:
        """Elements from `begin` on of a part's gradient are final."""
        if message.part not in self._mine:
            raise ProtocolError(f"part: expected one of host {self._host}'s; found {message.part} of worker {rank}")
        part, in_hand = Part(message.step, message.part), self._view.workers.in_hand
        if message.begin == 0 and in_hand.late(rank, part):
            self._writing.pop((rank, part), None)
            self._view.workers.came_late()
            return
        late = self._step.backup > 0 and message.step < self._announced  # the lead counts it
        if not (late or in_hand.has(rank, part)):
            return  # it was there before, or the run ends without it
        copied = (rank, part) in self._writing
        if copied and message.begin:
            return  # only what is whole counts
        if copied:
            self._settle(rank, part)
        if message.begin == 0:
            in_hand.done(rank, part)
            pushed = HostMessage.Pushed(step=message.step, part=message.part, loss=message.loss, rank=rank)
            self._view.to_lead(HostMessage(pushed=pushed))
        if message.step != self.version or self._step.backup:
            return  # late; or not known yet whether it is a member
        assert self._finals is not None
        for index in self._finals.final(message.part - self._mine.start, message.begin):
            for leaf in self._own_leaves:
                self._hand_on(index, leaf, [part - self._mine.start for part in range(*leaf)])

    def _hand_on(self, index: int, leaf: Range, gradients: list[int]) -> None:
        """Sums a block of some gradients of this host, in the place of the first, and hands it to the block's owner."""
        begin, end, owner = self._blocks[index]
        blocks = [self._view.vectors.gradients[self._places[g]][begin:end] for g in gradients]
        if len(blocks) > 1:
            plan = sum_plan(microbatch_leaves(len(blocks)))
            tree_sum(plan, blocks, [row[: end - begin] for row in self._scratch])
        if owner != self._host:
            make = partial(self._pack, index, leaf, blocks[0], self.version)
            self._view.push(owner, (begin,), make)
        elif leaf == self._own_leaves[-1]:
            self._local[index] = True
            self._try(index)

    def _pack(self, index: int, leaf: Range, gradient: Block, step: int) -> list[Bytes]:
        """A block of a gradient as a message; in the thread that sends it, when its turn comes."""
        return self._view.pack(
            index,
            step=step,
            version=step,
            part_begin=leaf[0],
            part_end=leaf[1],
            format=FORMAT_NUMBERS[self._view.gradient_format.name],
            data=self._encoder.encode(f"{leaf[0]}.{index}", gradient),
        )

    # At the owner of a block

    def room_for_part(self, host: int, step: int, parts: tuple[int, int], index: int) -> NDArray[np.float32]:
        """Where a block from another host is decoded to; called from other threads."""
        buffer = self._incoming.get((host, parts))
        if buffer is None:
            known = [leaf for h, leaf in self._incoming if h == host]
            raise ProtocolError(f"part_begin, part_end: expected one of {known} from host {host}; found {parts}")
        if step != self._whole_blocks[index]:
            raise ProtocolError(f"step: expected {self._whole_blocks[index]}; found {step}")
        begin, end, _ = self._blocks[index]
        newest = self._newest[host, parts]  # each host has one stream, and so one thread
        if newest[index] == step:
            raise ProtocolError(
                f"begin, end: expected a block that is new in step {step}; found [{begin}, {end}) again"
            )
        newest[index] = step
        first = self._view.shards.bounds[self._host][0]
        return buffer[begin - first : end - first]

    def on_part(self, event: PartArrived) -> None:
        self._arrived[event.block] += 1
        self._try(event.block)

    def _try(self, index: int) -> None:
        """Updates a block of which all parts are there."""
        if self._step.backup and self._closed < self._whole_blocks[index]:
            return  # who is in the step is not known yet
        if self._local[index] and self._arrived[index] == self._needed:
            self._sum(index)

    def _sum(self, index: int) -> None:
        step = self._whole_blocks[index]
        self._view.faults.at("apply.before", step)
        begin, end, _ = self._blocks[index]
        first = self._view.shards.bounds[self._host][0]
        leaves = []
        for host, leaf in self._leaves:
            if host == self._host:
                gradient = self._local_gradient(leaf)
                leaves.append(self._view.vectors.gradients[self._places[gradient]][begin:end])
            else:
                leaves.append(self._incoming[host, leaf][begin - first : end - first])
        assert self._plan is not None
        summed = self._view.shard.sum(self._plan, leaves)
        if self._factor is not None:
            np.multiply(summed, np.float32(self._factor), summed)
        self._view.shard.set_aside(begin, summed)
        self._arrived[index], self._local[index] = 0, not self._mine
        self._whole_blocks[index] = step + 1
        measures = self._step.measures
        if measures or self._step.has_row(step + 1):
            self._note_squares(step, index, summed)
        if measures:
            self._summed[index] = summed
        else:
            self._apply(index, step, summed, None)

    def _local_gradient(self, leaf: Range) -> int:
        """Which gradient of this host's memory holds the sum of a leaf: its first."""
        if self._members is None:
            return leaf[0] - self._mine.start
        return next(part for part in self._members if part in self._mine) - self._mine.start

    def _note_squares(self, step: int, index: int, summed: Block) -> None:
        self._squares[index] = squares(summed)
        if len(self._squares) == len(self._own):
            values = [value for i in self._own for value in self._squares[i]]
            first = self._blocks[self._own.start].begin // CHUNK
            self._squares = {}
            message = HostMessage.Squares(step=step, first_chunk=first, squares=values)
            self._view.to_lead(HostMessage(squares=message))

    def _apply(self, index: int, step: int, summed: Block, factor: float | None) -> None:
        begin, view = self._blocks[index].begin, self._view
        view.faults.at("apply.middle", step)
        update = view.shard.block_update(step, self._rate(step))
        if not view.shard.apply(begin, summed, update, factor):
            view.not_finite(step, begin, summed)
            return
        view.faults.at("apply.after", step)
        self._publish(index, step, summed)

    def _publish(self, index: int, step: int, parameters: Block) -> None:
        """A block of version `step + 1`, here and to all hosts."""
        begin, end, _ = self._blocks[index]
        view, faults = self._view, self._view.faults
        faults.at("publish.before", step)
        exact = step + 1 == self._last
        form = _EXACT if exact else view.parameters_format
        row = view.vectors.version(step + 1)[begin:end]
        data: Any
        if form.exact:
            row[...] = parameters
            data = form.encode(row, None)
        else:
            data = form.encode(parameters, None)
            form.decode(data, row)  # all hosts compute on the same parameters
        faults.at("publish.middle", step)
        make = partial(view.pack, index, step=step + 1, version=step + 1, format=FORMAT_NUMBERS[form.name], data=data)
        view.publish((step + 1, begin), make)
        self._there(index)

    def _rate(self, step: int) -> float:
        return self._step.outer_learning_rate if self._step.local_steps > 1 else self._learning_rate(step)

    @property
    def compression_error(self) -> float:
        return self._encoder.error_norm

    def on_outside(self, push: OutsidePush) -> None:
        """The microbatches of a step are computed by the job's own workers: what else comes is one of them again."""
        push.answer(Verdict.DUPLICATE if push.step >= self.version else Verdict.LATE)

    def on_answered(self, owner: int, step: int, part: int) -> None:
        """Nothing: the next version is the answer to a push."""

    def on_refreshed(self, rank: int) -> None:
        """Never: what comes anew is published."""

    # The next version, block by block

    def room_for_parameters(self, version: int, index: int) -> NDArray[np.float32]:
        """Where a block of the next version is decoded to; called from other threads."""
        if version != self.version + 1:
            raise ProtocolError(f"step: expected version {self.version + 1}; found {version}")
        begin, end, _ = self._blocks[index]
        row: NDArray[np.float32] = self._view.vectors.version(version)[begin:end]
        return row

    def on_parameters(self, event: ParametersArrived) -> None:
        self._there(event.block)

    def _there(self, index: int) -> None:
        version = self.version + 1
        more = self._presence.there(index)
        if self._presence.whole:
            # Before the workers hear that all is there: what they compute next changes what is saved.
            self._save(version)
        if more and self._mine:
            if self._announced < version:
                self._announce(version)
            self._ready(version, self._presence.end)
        if self._presence.whole:
            self._whole(version)

    def _save(self, version: int) -> None:
        final, residuals = version == self._last, self._encoder.residuals
        if self._step.saves(version) or final:
            self._view.save(version, updates=version, residuals=residuals, final=final)
        if version == self._replicated:
            self._view.save(version, updates=version, residuals=residuals, replica=True)

    def _whole(self, version: int) -> None:
        self.version = version
        self._view.faults.at("publish.after", version - 1)
        self._presence.reset()
        if self._finals is not None:
            self._finals.reset()
        self._view.to_lead(HostMessage(whole=HostMessage.Whole(version=version)))
        if version == self._last:
            self._view.workers.finish(
                version, evaluate=version == self._step.versions and self._step.evaluates(version)
            )

    # From the lead

    def on_lead(self, message: LeadMessage) -> None:
        kind = message.WhichOneof("kind")
        if kind == "norm":
            self._measured(message.norm.step, message.norm.norm)
        elif kind == "closed":
            self._close(message.closed.step, list(message.closed.parts))
        elif kind == "save":
            self._replicated = message.save.version
            if self.version >= self._replicated:
                self._view.to_lead(skipped(self._replicated, replica=True))
        elif kind == "last":
            self._last = min(self._last, message.last.version)
            if self.version >= self._last:
                self._view.workers.finish(self.version, evaluate=False)

    def _measured(self, step: int, norm: float) -> None:
        """The norm of the whole gradient is known; NaN where the step is skipped. Else one that is not finite shortens
        nothing, and is found later."""
        clip = self._step.clip_norm
        factor = clip / (norm + 1e-6) if 0 < clip < norm < math.inf else None
        skipped = self._step.skips(0.0, norm)
        summed, self._summed = self._summed, {}
        for index, block in summed.items():
            if skipped:
                self._view.shard.keep(self._blocks[index].begin, block)
                self._publish(index, step, block)
            else:
                self._apply(index, step, block, factor)

    def _close(self, step: int, members: list[int]) -> None:
        """With backup workers: the step is summed over `members`, host by host."""
        self._members, self._closed = members, step
        hosts = [h for h, parts in enumerate(self._parts.of_host) if any(m in parts for m in members)]
        self._leaves = [(h, (h, h + 1)) for h in hosts]
        self._plan = sum_plan(microbatch_leaves(len(hosts)))
        self._needed = len(hosts) - (self._host in hosts)
        self._factor = 1.0 / sum(self._weights[m] for m in members)
        mine = [m - self._mine.start for m in members if m in self._mine] if self._mine else []
        if not mine:
            self._local = dict.fromkeys(self._own, True)
        for index in range(len(self._blocks)):
            if mine:
                self._hand_on(index, (self._host, self._host + 1), mine)
            elif index in self._own:
                self._try(index)
