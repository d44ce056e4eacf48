"""When a step is complete: which pushes count, and what becomes of the others.

A policy holds the bookkeeping of one server and nothing else: no socket, no clock, no array. It answers each push with
a `Verdict`, and says when the step may be summed and applied.

Rules of `Sync`:
  - A step is complete when the gradient of each of its V microbatches is in.
  - A push is named by (generation, step, microbatch). A repeat is acknowledged and not counted again.
  - A push from an older generation is fenced off; one for an older step came too late, and both change nothing.
  - A push for a step or microbatch that nobody was asked for is the peer's mistake.
"""

from __future__ import annotations

from enum import Enum

from thalweg_proto.errors import ProtocolError
from thalweg_proto.messages import Push


class Verdict(Enum):
    """What became of a push; the values are the label `result` of the metric thalweg_pushes_total."""

    ACCEPTED = "accepted"
    DUPLICATE = "duplicate"
    STALE = "stale"
    FENCED = "fenced"


class Sync:
    """Every step waits for every microbatch.

    step:       the step that is being collected
    generation: the membership whose pushes count
    losses:     mean loss of each microbatch that is in, by microbatch
    """

    def __init__(self, microbatches: int, *, step: int = 0, generation: int = 1) -> None:
        self.microbatches = microbatches
        self.step = step
        self.generation = generation
        self.losses: dict[int, float] = {}

    @property
    def complete(self) -> bool:
        """Whether the step may be summed and applied."""
        return len(self.losses) == self.microbatches

    def on_push(self, push: Push) -> Verdict:
        """Counts a push. ProtocolError where no worker can have been asked for it."""
        if push.generation > self.generation or push.step > self.step or push.microbatch >= self.microbatches:
            raise ProtocolError(
                f"expected a push of generation {self.generation}, step {self.step} and a microbatch below "
                f"{self.microbatches}; found generation {push.generation}, step {push.step}, "
                f"microbatch {push.microbatch}"
            )
        if push.generation < self.generation:
            return Verdict.FENCED
        if push.step < self.step:
            return Verdict.STALE
        if push.microbatch in self.losses:
            return Verdict.DUPLICATE
        self.losses[push.microbatch] = push.loss
        return Verdict.ACCEPTED

    def advance(self) -> None:
        """The step was applied: collect the next one."""
        self.step += 1
        self.losses.clear()
