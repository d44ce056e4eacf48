"""sync: a step ends when all its gradients are in. With backup workers: when all but k are.

Rules:
  - A step has `parts` gradients, one for each microbatch. Step t + 1 begins when step t has ended, not before.
  - It ends with the gradient that makes `parts - backup`; those that are in then are its members. One that comes later
    is late, and is dropped.
  - With backup = 0 the members are always all: the result is exact. With backup > 0 it depends on who is slow: it is
    not (Chen et al., "Revisiting Distributed Synchronous SGD", 2016, show that it may still be quicker).
"""

from __future__ import annotations

from thalweg_cluster.consistency.verdict import Verdict


class Barrier:
    """The step that is open now, and who is in it."""

    def __init__(self, parts: int, backup: int = 0, first: int = 0) -> None:
        """`parts` >= 1 gradients a step, of which the `backup` < `parts` slowest are not waited for; from step `first`
        on."""
        if not 0 <= backup < parts:
            raise ValueError(f"expected 0 <= backup < parts ({parts}); found {backup}")
        self._needed = parts - backup
        self._step = first
        self._arrived: set[int] = set()

    @property
    def step(self) -> int:
        """The step that is open: all before it have ended."""
        return self._step

    @property
    def members(self) -> list[int]:
        """The parts that are in the open step so far, ascending."""
        return sorted(self._arrived)

    @property
    def full(self) -> bool:
        """Whether the open step has all that it waits for: it is to be ended with `end`."""
        return len(self._arrived) == self._needed

    def arrived(self, step: int, part: int) -> Verdict:
        """A gradient is there. ValueError where its step is yet to come: nobody has what it would be computed on."""
        if step > self._step:
            raise ValueError(f"a gradient for step {step}, but step {self._step} has not ended")
        if step < self._step or (self.full and part not in self._arrived):
            return Verdict.LATE
        if part in self._arrived:
            return Verdict.DUPLICATE
        self._arrived.add(part)
        return Verdict.ACCEPTED

    def end(self) -> list[int]:
        """Ends the open step, which is `full`, and opens the next one; returns its members."""
        if not self.full:
            raise ValueError(f"step {self._step} has {len(self._arrived)} of {self._needed} gradients")
        members = self.members
        self._step += 1
        self._arrived.clear()
        return members
