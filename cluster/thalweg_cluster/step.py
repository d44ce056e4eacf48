"""The server's part of a step on one host: sum, update, publish.

While it happens, every worker would only wait; so the workers do it, each on a share of the flat vector, and no other
process has to be woken. Who arrives last at a rendezvous does what is to be done once.

    all gradients are there -> [the norm, where it is clipped] -> sum and rule, each its share -> version t + 1 is whole
       once: sum the losses        once: take the norm                                           once: publish it

Rules:
  - Nothing that is not finite is ever published: the run halts, and version t stays whole. Or, where the job says so, a
    step whose loss or summed gradient is not finite is skipped: version t + 1 is version t, and so is the rule's state.
  - The last version is not trained on; where there is a held-out set, it is always evaluated.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from time import perf_counter
from typing import Any, Protocol

from thalweg_cluster.rules import Rule, make_rule
from thalweg_cluster.schedules import Schedule, make_schedule
from thalweg_cluster.summation import tree_sum_scalars
from thalweg_cluster.update import UpdatePass, norm
from thalweg_proto.board import Board, Outcome
from thalweg_proto.faults import PlannedFaults
from thalweg_proto.shared_memory import MemoryPlan, Vectors
from thalweg_proto.shares import share

ROWS = 100
"""Lines of metrics.jsonl in a run; those of evaluations, and those there are for the time (account.py), not counted."""


SKIPPED_MAX = 10
"""The run ends with so many steps in a row that are not finite: that is no bad sample, and will not pass."""
ADVICE = "Lower optimizer.learning_rate, or set optimizer.clip_norm or optimizer.warmup_steps."
"""What to do about a step that is not finite."""


class Copies(Protocol):
    """The server's copies of versions, of which it makes checkpoints."""

    def ask(self, version: int) -> None:
        """Asks for one; it is made while the step that follows is computed."""
        ...

    def wait(self, version: int) -> bool:
        """Waits until it is there, or until the server says that none will be; False where the server is gone."""
        ...


@dataclass(frozen=True, kw_only=True)
class StepSpec:
    """What a step of a job is.

    steps, batch_size: of the whole job; `microbatches` is V
    rule:              name of the update rule; `rule_options` its options, named as in the job file
    schedule:          options of the learning rate's schedule, `learning_rate` among them
    clip_norm:         the largest norm of the summed gradient, longer ones are shortened to it
                       (torch.nn.utils.clip_grad_norm_); 0: off
    skip:              a step whose loss or summed gradient is not finite is skipped; else the run ends
    eval_every:        the held-out set is evaluated at each version that this divides; 0: only the last one
    save_every:        likewise for checkpoints; None: there are none
    chunks:            into how many chunks the held-out set is cut; 0: there is none
    threads:           with which each worker updates its share; 0: its part of the host's cores
    """

    microbatches: int
    batch_size: int
    steps: int
    rule: str
    rule_options: Mapping[str, Any] = field(default_factory=dict)
    schedule: Mapping[str, Any] = field(default_factory=dict)
    clip_norm: float = 0.0
    skip: bool = False
    eval_every: int = 0
    save_every: int | None = None
    chunks: int = 0
    threads: int = 0
    consistency: str = "sync"
    staleness: int | None = None
    staleness_scaling: bool = False
    backup: int = 0
    local_steps: int = 1
    outer_learning_rate: float = 0.7
    outer_momentum: float = 0.9

    def server_rule(self) -> Rule:
        """What the owners of the parameters apply: the job's rule, or with local steps an outer one."""
        if self.local_steps == 1:
            return make_rule(self.rule, self.rule_options)
        momentum = self.outer_momentum
        return make_rule("nesterov", {"momentum": momentum}) if momentum else make_rule("sgd", {})

    def learning_rate(self) -> Schedule:
        """The learning rate as a function of the step."""
        return make_schedule(self.schedule, self.steps)

    def weights(self) -> list[float]:
        """The share of each microbatch in the batch."""
        v, b = self.microbatches, self.batch_size
        return [len(share(b, m, v)) / b for m in range(v)]

    @property
    def workers_meet(self) -> bool:
        """Whether the workers, where all are on one host, do the server's part of a step themselves: they all wait for
        each other in each step."""
        return self.consistency == "sync" and self.backup == 0 and self.local_steps == 1

    @property
    def measures(self) -> bool:
        """Whether the whole gradient is summed before the first parameter changes: to shorten it, or skip the step."""
        return self.local_steps == 1 and (self.clip_norm > 0 or self.skip)

    def skips(self, loss: float, gradient_norm: float) -> bool:
        """Whether a step with this loss and this norm of the summed gradient is skipped."""
        return self.skip and not (math.isfinite(loss) and math.isfinite(gradient_norm))

    @property
    def versions(self) -> int:
        """The number of the last version."""
        return -(-self.steps // self.local_steps)

    def steps_done(self, version: int) -> int:
        """How many steps have been taken where `version` is there."""
        return min(version * self.local_steps, self.steps)

    def outcome(self, version: int, *, stop_asked: bool) -> Outcome:
        """What a version that is whole is for."""
        if version == self.versions:
            return Outcome.DONE
        return Outcome.STOPPED if stop_asked else Outcome.TRAIN

    def evaluates(self, version: int) -> bool:
        """Whether the held-out set is evaluated with `version`."""
        return self.chunks > 0 and self._passes(version, self.eval_every)

    def saves(self, version: int) -> bool:
        """Whether there is a checkpoint of `version`."""
        return self.save_every is not None and self._passes(version, self.save_every)

    def next_save(self, version: int) -> int:
        """The next version after `version` of which there is a checkpoint; the last one where there is none before."""
        if not self.save_every:
            return self.versions
        step = (self.steps_done(version) // self.save_every + 1) * self.save_every
        return min(-(-step // self.local_steps), self.versions)

    def has_row(self, version: int) -> bool:
        """Whether there is a line of metrics.jsonl for `version`."""
        return self.evaluates(version) or self._passes(version, max(1, self.steps // ROWS))

    def _passes(self, version: int, every: int) -> bool:
        """Whether the steps that made `version` end at or pass a multiple of `every`; true for the last version."""
        if version == self.versions:
            return True
        done, before = self.steps_done(version), self.steps_done(version - 1)
        return version > 0 and every > 0 and done // every > before // every


class HostStep:
    """The server's part of each step, as one worker does it."""

    def __init__(
        self,
        spec: StepSpec,
        plan: MemoryPlan,
        vectors: Vectors,
        board: Board,
        *,
        rank: int,
        copies: Copies,
        averaged: Sequence[tuple[int, int]] = (),
        faults: PlannedFaults = PlannedFaults(),
    ) -> None:
        """`copies`: how the server is asked to copy a version; `averaged`: of the model's layout; `faults`: of the run.

        `join` comes before the first step.
        """
        self._spec = spec
        self._plan = plan
        self._vectors = vectors
        self._board = board
        self._copies = copies
        self._averaged = averaged
        self._rank = rank
        self._faults = faults.of("worker", rank)
        self._learning_rate = spec.learning_rate()
        self._weights = spec.weights()
        self._update: UpdatePass | None = None

    def join(self, place: int, members: int) -> None:
        """This worker is number `place` of `members` from now on."""
        self.close()
        spec, plan = self._spec, self._plan
        self._update = UpdatePass(
            plan,
            self._vectors,
            make_rule(spec.rule, spec.rule_options),
            chunks=share(plan.chunks, place, members),
            squares=self._board.squares,
            threads=spec.threads or max(1, len(os.sched_getaffinity(0)) // members),
            averaged=self._averaged,
        )

    @property
    def shares(self) -> list[tuple[Callable[[], None], Callable[[], None]]]:
        """In this order: this worker's share, and what is to be done once when all have done theirs."""
        apply = (self._apply, self._publish)
        return [(self._measure, self._take_norm), apply] if self._spec.measures else [apply]

    def pushed(self) -> None:
        """Once, when all gradients of the step are there: sums the losses."""
        board = self._board
        loss = tree_sum_scalars([weight * loss for weight, loss in zip(self._weights, board.losses, strict=True)])
        board.summed(loss)
        if not math.isfinite(loss) and not self._spec.skip:
            board.halt()

    def _measure(self) -> None:
        assert self._update is not None  # since `join`
        self._update.measure(self._board.version)

    def _take_norm(self) -> None:
        board = self._board
        board.measured(norm(board.squares))
        if self._skipped and board.skipped_in_a_row + 1 == SKIPPED_MAX:
            board.halt()

    @property
    def _skipped(self) -> bool:
        """Whether the step is skipped; once its gradient is measured."""
        return self._spec.skips(self._board.loss, self._board.gradient_norm)

    def _apply(self) -> None:
        board, clip = self._board, self._spec.clip_norm
        step = board.version
        assert self._update is not None  # since `join`
        self._faults.at("apply.before", step)
        if self._skipped:
            self._update.keep(step)
            board.finite[self._rank] = True
            return
        # A norm that is not finite shortens nothing: the pass itself will find what is not finite.
        shorten = clip and clip < board.gradient_norm < math.inf
        board.finite[self._rank] = self._update.apply(
            step,
            self._learning_rate(step),
            summed=self._spec.measures,
            factor=clip / (board.gradient_norm + 1e-6) if shorten else None,
            note_squares=not self._spec.measures and self._spec.has_row(step + 1),
            middle=partial(self._faults.at, "apply.middle", step),
        )
        self._faults.at("apply.after", step)

    def _publish(self) -> None:
        board, spec = self._board, self._spec
        step, version = board.version, board.version + 1
        self._faults.at("publish.before", step)
        if not all(board.finite):
            board.halt()
            return
        # Once it is published, the gradients of the step that follows come over the state at the version before.
        if spec.saves(board.version) and not self._copies.wait(board.version):
            return  # the server ended the run, or is gone: the next look at its socket tells
        if not spec.measures and spec.has_row(version):
            board.measured(norm(board.squares))
        outcome = spec.outcome(version, stop_asked=board.stop_asked)
        evaluate = outcome is not Outcome.STOPPED and spec.evaluates(version)
        middle = partial(self._faults.at, "publish.middle", step)
        board.publish(version, outcome, evaluate=evaluate, at_s=perf_counter(), skipped=self._skipped, middle=middle)
        if outcome is Outcome.TRAIN and spec.saves(version):
            self._copies.ask(version)
        self._faults.at("publish.after", step)

    def close(self) -> None:
        """Ends the threads."""
        if self._update is not None:
            self._update.close()
