"""What is decided once for all hosts, by the server of host 0: who computes what, how far the run is, when it ends.

Rules:
  - It hears HostMessages, of its own host as of the others, and says LeadMessages; tensors never pass through it.
  - In sync no step waits for it: a host begins the next step when it has the parameters. It only keeps the account.
  - The account of a step is made when all of it is known; steps are accounted in order.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from time import perf_counter

import numpy as np

from thalweg_cluster.checkpoints.state import TrainingState
from thalweg_cluster.consistency import Barrier, Grant, StaleSynchronous, Verdict
from thalweg_cluster.hosts.replicating import NOTICE, ReplicaClock
from thalweg_cluster.hosts.spec import Parts, ServedSpec
from thalweg_cluster.server.account import Account
from thalweg_cluster.server.telemetry import WireCounts
from thalweg_cluster.step import ADVICE, SKIPPED_MAX
from thalweg_cluster.summation import tree_sum_scalars
from thalweg_cluster.update import norm
from thalweg_proto.blocks import Shards
from thalweg_proto.messages import Evaluated, unpack_from_worker
from thalweg_proto.shared_memory import CHUNK
from thalweg_proto.v1.coordination_pb2 import HostMessage, LeadMessage

Tell = Callable[[int, LeadMessage], None]
Commit = Callable[[int, list[HostMessage.Saved]], None]


@dataclass
class _Step:
    """What is known of a step.

    losses: by part; loss: of the whole step, once its members are known; whole_s: when its version was there
    squares: by chunk; norm: NaN where it is not taken
    """

    losses: dict[int, float] = field(default_factory=dict)
    loss: float | None = None
    whole_s: float | None = None
    squares: dict[int, list[float]] = field(default_factory=dict)
    norm: float | None = None


class Lead:
    """Decides, for a job in which hosts wait for each other (`BarrierLead`) or do not (`StaleLead`).

    error: what the run fails with; hung: why workers were killed, by rank
    """

    def __init__(self, spec: ServedSpec, account: Account, tell: Tell, commit: Commit, start: TrainingState) -> None:
        """`tell(host, message)` reaches any host, this one included.

        commit: makes a checkpoint of what all hosts have saved
        start:  what the run goes on from
        """
        self._spec = spec
        self._commit = commit
        self._step = spec.step
        self._account = account
        self._tell = tell
        self._hosts = range(spec.topology.hosts)
        self._waiting_for = set(self._hosts)  # hosts whose workers have not all joined
        self._staying = set(self._hosts)  # hosts whose workers have not all left
        self._parts = Parts.of(spec.topology, spec.step)
        self.began = False
        self.error: str | None = None
        self.hung: dict[int, str] = {}
        self._saved_version = -1  # the newest of which all hosts have saved what they have, or could not
        # By version, and whether it is a replica: of the hosts that are done.
        self._saves: dict[tuple[int, bool], list[HostMessage.Saved]] = {}
        self._replicas = ReplicaClock(spec.replicate_every_s)
        shards = Shards.of(spec.layout.size, spec.topology.owns, block=spec.block)
        # One without workers, and without a shard since there are fewer chunks than owners, has nothing.
        self._having = [h for h in self._hosts if spec.topology.ranks[h] or shards.owned_by(h)]

    @property
    def done(self) -> bool:
        """Whether nothing more will come."""
        saved = self._spec.save is None or self._saved_version >= self._version
        return not self._staying and (self.error is not None or (saved and self._accounts_made))

    @property
    def _version(self) -> int:
        """The newest version."""
        raise NotImplementedError

    @property
    def _accounts_made(self) -> bool:
        """Whether all that was trained is accounted."""
        return True

    def on(self, host: int, message: HostMessage) -> None:
        """What a host says."""
        kind = message.WhichOneof("kind")
        if self.error is not None and kind != "left":
            return  # what a run that has failed still says
        if kind == "ready":
            self._waiting_for.discard(host)
            if not self._waiting_for and not self.began:  # who says it twice does not begin the run twice
                self.began = True
                self._account.begin()
                self._replicas.start(perf_counter())
                self._all(LeadMessage(begin=LeadMessage.Begin()))
                self._begin()
        elif kind == "records":
            records = unpack_from_worker(message.records.records)
            if isinstance(records, np.ndarray):
                self._account.telemetry.heard(records)
        elif kind == "evaluated":
            m = message.evaluated
            self._account.evaluated(Evaluated(m.version, m.chunk, m.labels, m.correct, m.loss_sum))
        elif kind == "pushed":
            self._pushed(message.pushed)
        elif kind == "saved":
            self._saved(message.saved)
        elif kind == "beat":
            counts = {name: getattr(message.beat, name) for name in WireCounts.NAMES}
            self._account.telemetry.on_wire(host, counts)
        elif kind == "failed":
            self.fail(message.failed.error)
        elif kind == "copies":
            copies, telemetry = message.copies, self._account.telemetry
            telemetry.copied(copies.given, copies.won)
            if copies.given:
                with telemetry.lock:
                    telemetry.waiting.held_up(copies.rank, copies.waited_s)
            if copies.late:
                telemetry.pushed(Verdict.LATE, pushes=copies.late)
        elif kind == "left":
            self._staying.discard(host)
        elif kind == "hung":
            self.hung[message.hung.rank] = message.hung.found
        elif kind in ("gone", "came"):
            self._account.telemetry.generation += 1
            self._on(host, kind, message)
        else:
            self._on(host, kind, message)

    def _saved(self, saved: HostMessage.Saved) -> None:
        """A host has saved its part of a checkpoint or a replica, or has not."""
        key = saved.version, saved.replica
        parts = self._saves.setdefault(key, [])
        parts.append(saved)
        if len(parts) == len(self._having):
            if not saved.replica:
                self._saved_version = saved.version
            self._commit(saved.version, self._saves.pop(key))

    def replicate(self, now_s: float) -> None:
        """Has a replica made where one is due."""
        if self._replicas.due(now_s) and self._begin_replica():
            self._replicas.begun(now_s)

    def replica_ended(self) -> None:
        """What all hosts have saved of a replica is committed, or came to nothing."""
        self._replicas.ended(perf_counter())

    def _begin_replica(self) -> bool:
        """Tells the hosts of a replica; False where there is none to be made now."""
        raise NotImplementedError

    def fail(self, error: str) -> None:
        """The run ends; the first error is the one that is told."""
        self.error = self.error or error
        self.end()

    def end(self) -> None:
        """The run is over on all hosts."""
        self._all(LeadMessage(stop=LeadMessage.Stop()))

    def stop(self) -> None:
        """The run is asked to end soon."""
        raise NotImplementedError

    def _begin(self) -> None:
        """All workers of all hosts are there."""

    def _pushed(self, pushed: HostMessage.Pushed) -> None:
        raise NotImplementedError

    def _on(self, host: int, kind: str | None, message: HostMessage) -> None:
        """What only this kind of job has."""

    def _stepped(self, version: int, loss: float, gradient_norm: float, whole_s: float) -> None:
        self._account.stepped(version, np.array([loss]), np.array([gradient_norm]), np.array([whole_s]))

    def _all(self, message: LeadMessage) -> None:
        for host in self._hosts:
            self._tell(host, message)

    def _non_finite_loss(self, step: int, part: int, loss: float) -> None:
        first = self._step.steps_done(step)
        part_of = "worker" if self._step.local_steps > 1 else "microbatch"
        rate = self._step.learning_rate()(first)
        self.fail(f"step {first}: the loss of {part_of} {part} is {loss}; the learning rate was {rate:g}. {ADVICE}")


class BarrierLead(Lead):
    """sync, backup workers, local steps."""

    def __init__(self, spec: ServedSpec, account: Account, tell: Tell, commit: Commit, start: TrainingState) -> None:
        super().__init__(spec, account, tell, commit, start)
        self._barrier = Barrier(self._parts.total, spec.step.backup, start.version)
        self._early: list[HostMessage.Pushed] = []  # of a step whose predecessor's pushes are not all heard of
        self._steps: dict[int, _Step] = {}  # not accounted yet
        self._accounted = start.version
        self._whole_on = dict.fromkeys(self._having, start.version)  # the newest version that each host has
        self._weights = (
            spec.step.weights() if spec.step.local_steps == 1 else [1 / self._parts.total] * self._parts.total
        )
        self._chunks = -(-spec.layout.size // CHUNK)
        self._skipped_in_a_row = 0
        self._replicated = -1  # the version of which there is to be a replica, or was

    @property
    def _version(self) -> int:
        return self._whole_on[0]

    @property
    def _accounts_made(self) -> bool:
        return self._accounted >= self._whole_on[0]

    def _begin_replica(self) -> bool:
        version = self._whole_on[0] + NOTICE
        if version >= self._step.versions or self._step.saves(version):
            return False  # a checkpoint is as good
        self._replicated = version
        self._all(LeadMessage(save=LeadMessage.Save(version=version, replica=True)))
        return True

    def stop(self) -> None:
        # No host can be more than one version ahead of this one: this version and the next are still made.
        last = LeadMessage.Last(version=min(self._whole_on[0] + 2, self._step.versions))
        self._all(LeadMessage(last=last))

    def _pushed(self, pushed: HostMessage.Pushed) -> None:
        if pushed.step > self._barrier.step:
            self._early.append(pushed)  # the streams of two hosts are not in step with each other
            return
        verdict = self._barrier.arrived(pushed.step, pushed.part)
        self._account.telemetry.pushed(verdict)
        if verdict is not Verdict.ACCEPTED:
            return
        if not math.isfinite(pushed.loss) and not self._step.skip:
            self._non_finite_loss(pushed.step, pushed.part, pushed.loss)
            return
        known = self._steps.setdefault(pushed.step, _Step())
        known.losses[pushed.part] = pushed.loss
        self._close_if_full()

    def _close_if_full(self) -> None:
        """Ends a step that has all that it waits for. With backup workers, a host may have no part in it; still it must
        have the version that the step started from, or the next but one would come over it."""
        step = self._barrier.step
        if not self._barrier.full or (self._step.backup and min(self._whole_on.values()) < step):
            return
        members = self._barrier.end()
        if self._step.backup:
            self._all(LeadMessage(closed=LeadMessage.Closed(step=step, parts=members)))
        known = self._steps[step]
        whole = sum(self._weights[m] for m in members) if self._step.backup else 1.0
        known.loss = tree_sum_scalars([self._weights[m] * known.losses[m] for m in members]) / whole
        if self._step.skip:
            self._decide(step)
        self._settle()
        early, self._early = self._early, []
        for later in early:
            self._pushed(later)

    def _on(self, host: int, kind: str | None, message: HostMessage) -> None:
        if kind == "whole":
            version = self._whole_on[host] = message.whole.version
            if host == 0:
                if version == self._replicated:
                    self._replicas.copied(perf_counter())
                self._steps.setdefault(version - 1, _Step()).whole_s = perf_counter()
                self._settle()
            self._close_if_full()
        elif kind == "squares":
            part = message.squares
            known = self._steps.setdefault(part.step, _Step())
            known.squares[part.first_chunk] = list(part.squares)
            if sum(map(len, known.squares.values())) == self._chunks:
                values = [value for first in sorted(known.squares) for value in known.squares[first]]
                known.norm = norm(np.array(values))
                if self._step.measures:
                    self._decide(part.step)
                self._settle()

    def _decide(self, step: int) -> None:
        """Tells all owners the norm of a step's gradient, once it is known; where they may skip the step, once the loss
        is known, too."""
        known = self._steps[step]
        if known.norm is None or (self._step.skip and known.loss is None):
            return
        skipped = known.loss is not None and self._step.skips(known.loss, known.norm)
        self._skipped_in_a_row = self._skipped_in_a_row + 1 if skipped else 0
        if self._skipped_in_a_row == SKIPPED_MAX:
            self.fail(
                f"step {step}: the loss is {known.loss}, the norm of the gradient {known.norm}, and neither was finite "
                f"in the {SKIPPED_MAX - 1} steps before, which were skipped; the learning rate was "
                f"{self._step.learning_rate()(step):g}. {ADVICE}"
            )
            return
        if skipped:
            self._account.telemetry.step_skipped()
        self._all(LeadMessage(norm=LeadMessage.Norm(step=step, norm=math.nan if skipped else known.norm)))

    def _settle(self) -> None:
        """Accounts what is known to the end."""
        while (known := self._steps.get(self._accounted)) is not None:
            wanted = self._step.has_row(self._accounted + 1) or self._step.measures
            if known.loss is None or known.whole_s is None or (wanted and known.norm is None):
                return
            del self._steps[self._accounted]
            self._accounted += 1
            gradient_norm = math.nan if known.norm is None else known.norm
            self._stepped(self._accounted, known.loss, gradient_norm, known.whole_s)


class StaleLead(Lead):
    """ssp, async."""

    def __init__(self, spec: ServedSpec, account: Account, tell: Tell, commit: Commit, start: TrainingState) -> None:
        super().__init__(spec, account, tell, commit, start)
        step = spec.step
        bound = step.staleness if step.consistency == "ssp" else None
        self._policy = StaleSynchronous(step.steps, step.microbatches, bound, start.version)
        self._policy.hold(step.next_save(start.version))
        self._copying: set[int] | None = None  # the hosts that have not copied what they have for a checkpoint
        self._replicating = False  # the policy holds for a replica
        self._losses: dict[int, dict[int, float]] = {}  # by step and microbatch
        self._absent: set[int] = set()  # ranks of workers that are gone, and not replaced
        self._weights = step.weights()
        self._ended = False

    @property
    def _version(self) -> int:
        return self._policy.version

    def _begin_replica(self) -> bool:
        if self._copying is not None or not self._policy.hold_soon():
            return False  # a checkpoint is as good
        self._replicating = True
        self._copy_if_held()
        return True

    def stop(self) -> None:
        self._policy.stop()
        self._end_if_finished()

    def _begin(self) -> None:
        for rank in range(self._spec.topology.workers):
            self._ask(rank)

    def _ask(self, rank: int) -> None:
        """A worker may be free."""
        if rank not in self._absent and not self._policy.busy(rank):
            self._grant(self._policy.ask(rank))

    def _grant(self, grants: list[Grant]) -> None:
        for rank, step, microbatch in grants:
            granted = LeadMessage.Granted(rank=rank, step=step, microbatch=microbatch, version=self._policy.version)
            self._tell(self._spec.topology.host_of(rank), LeadMessage(granted=granted))

    def _pushed(self, pushed: HostMessage.Pushed) -> None:
        if not math.isfinite(pushed.loss):
            self._non_finite_loss(pushed.step, pushed.part, pushed.loss)
        self._losses.setdefault(pushed.step, {})[pushed.part] = pushed.loss

    def _on(self, host: int, kind: str | None, message: HostMessage) -> None:
        if kind == "copied":
            self._copied(host)
        elif kind == "applied":
            self._applied(message.applied.rank)
        elif kind == "gone":
            self._absent.add(message.gone.rank)
            self._policy.gone(message.gone.rank)
        elif kind == "came":
            self._absent.discard(message.came.rank)
            if self.began:
                self._ask(message.came.rank)
        elif kind == "returned":
            self._grant(self._policy.returned(message.returned.rank))

    def _applied(self, rank: int) -> None:
        before = self._policy.version
        staleness, grants = self._policy.applied(rank)
        self._account.telemetry.pushed(Verdict.ACCEPTED, staleness)
        for version in range(before + 1, self._policy.version + 1):
            losses = self._losses.pop(version - 1)
            loss = tree_sum_scalars([self._weights[m] * losses[m] for m in range(len(self._weights))])
            self._stepped(version, loss, math.nan, perf_counter())
            if self._step.evaluates(version) and version < self._step.versions:
                self._all(LeadMessage(evaluate=LeadMessage.Evaluate(version=version)))
        self._grant(grants)
        self._ask(rank)
        self._end_if_finished()
        self._copy_if_held()

    def _copy_if_held(self) -> None:
        """Has all hosts copy what they have, where nothing is under way."""
        if self._policy.held and not self._ended and self._copying is None:
            self._copying = set(self._hosts)
            self._all(LeadMessage(save=LeadMessage.Save(version=self._policy.version, replica=self._replicating)))
            self._replicating = False

    def _copied(self, host: int) -> None:
        """When all hosts have copied what they have, work goes on."""
        assert self._copying is not None  # the lead asked for it
        self._copying.discard(host)
        if not self._copying:
            self._copying = None
            self._grant(self._policy.hold(self._step.next_save(self._policy.version)))
            self._end_if_finished()

    def _end_if_finished(self) -> None:
        if self._policy.finished and not self._ended:
            self._ended = True
            version = self._policy.version
            evaluate = version == self._step.versions and self._step.evaluates(version)
            self._all(LeadMessage(last=LeadMessage.Last(version=version, evaluate=evaluate)))
