"""ssp and async: each push is applied at once, and nobody waits for a step to be whole.

Rules:
  - Work is dealt out in units (step, microbatch), in order, each once, to whoever is free. So a slow worker takes fewer
    units; nobody waits for it at the end of a step.
  - Version v of the parameters is there when all units of the steps below v are applied; it may hold later ones, too.
  - The staleness of a push is its step less the version that was there when its worker took the unit: how many whole
    versions its parameters may have lacked.
  - A unit of step t is given out only where version t - `staleness` is there: no worker is more than `staleness` steps
    ahead of the slowest, and no push is staler than that. With None there is no bound: async.
    (Ho et al., "More Effective Distributed ML via a Stale Synchronous Parallel Parameter Server", NIPS 2013; there the
    work of each worker is fixed, and so the slowest holds up all others for as long as it is slow.)
  - For a checkpoint or a replica it holds: nothing of a later step is given out before all of the earlier ones is
    applied and the state is copied. So each unit is in it whole, or not at all.
  - A unit that comes back, since its worker is gone, is given out before any other: it holds up those who wait for its
    step no longer than it takes. Each unit is applied once, of whoever had it last.
  - A worker that asks and gets nothing waits; the grants that a push sets free go to those who wait, first come first
    served.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple


class Grant(NamedTuple):
    """Worker `rank` computes microbatch `microbatch` of step `step`."""

    rank: int
    step: int
    microbatch: int


class StaleSynchronous:
    """Deals out `microbatches` units of each step from `first` to `steps` - 1."""

    def __init__(self, steps: int, microbatches: int, staleness: int | None, first: int = 0) -> None:
        self._steps = steps
        self._microbatches = microbatches
        self._bound = staleness
        self._next = (first, 0)
        self._waiting: deque[int] = deque()  # ranks
        self._taken: dict[int, tuple[Grant, int]] = {}  # by rank: what it computes, and the version when it took it
        self._returned: deque[tuple[int, int]] = deque()  # units, step and microbatch
        self._missing: dict[int, int] = {}  # by step that is not whole: how many of its units are not applied
        self._version = first
        self._last = self._hold = steps

    @property
    def version(self) -> int:
        """All units of the steps below are applied."""
        return self._version

    @property
    def finished(self) -> bool:
        """Whether all units that will be given out are applied."""
        return self._version >= self._last and not self._taken

    def ask(self, rank: int) -> list[Grant]:
        """A worker is free: what may be given out now, to it or to nobody."""
        if rank in self._taken:
            raise ValueError(f"worker {rank} asks for work while it has {self._taken[rank][0]}")
        self._waiting.append(rank)
        return self._grants()

    def applied(self, rank: int) -> tuple[int, list[Grant]]:
        """What worker `rank` computed is applied: its staleness, and what may be given out now, to others."""
        if rank not in self._taken:
            raise ValueError(f"a push of worker {rank}, which has no work")
        grant, version = self._taken.pop(rank)
        self._missing[grant.step] = self._missing.get(grant.step, self._microbatches) - 1
        while self._missing.get(self._version) == 0:
            del self._missing[self._version]
            self._version += 1
        return grant.step - version, self._grants()

    def busy(self, rank: int) -> bool:
        """Whether what worker `rank` was given is neither applied nor returned, or it waits for work."""
        return rank in self._taken or rank in self._waiting

    def gone(self, rank: int) -> None:
        """A worker is gone, and waits for nothing any more; what it was given is applied still, or returned."""
        if rank in self._waiting:
            self._waiting.remove(rank)

    def returned(self, rank: int) -> list[Grant]:
        """Worker `rank` will not push what it was given; what may be given out now, to others."""
        if rank not in self._taken:
            raise ValueError(f"worker {rank} returns work, and has none")
        grant, _ = self._taken.pop(rank)
        self._returned.append((grant.step, grant.microbatch))
        return self._grants()

    def hold(self, step: int) -> list[Grant]:
        """Gives out no unit of `step` or after, until it is said to hold at a later one: for a checkpoint.

        Returns what may be given out now.
        """
        self._hold = step
        return self._grants()

    def hold_soon(self) -> bool:
        """Holds at the first step of which nothing is given out yet; False where it does so anyhow, or will end."""
        step, microbatch = self._next
        soon = step + (microbatch > 0)
        if soon >= min(self._hold, self._last):
            return False
        self._hold = soon
        return True

    @property
    def held(self) -> bool:
        """Whether all that comes before the step at which it holds is applied, and nothing after."""
        return self._version == self._hold and not self._taken

    def stop(self) -> int:
        """Gives out no new step; the units of the steps begun are still done. Returns the last version."""
        step, microbatch = self._next
        self._last = min(self._last, step + (microbatch > 0))
        return self._last

    def _grants(self) -> list[Grant]:
        grants = []
        while self._waiting and (self._returned or self._may_give()):
            rank, (step, microbatch) = self._waiting.popleft(), self._unit()
            grant = Grant(rank, step, microbatch)
            self._taken[rank] = (grant, self._version)
            grants.append(grant)
        return grants

    def _unit(self) -> tuple[int, int]:
        """The next one to be given out."""
        if self._returned:
            return self._returned.popleft()
        step, microbatch = unit = self._next
        self._next = (step, microbatch + 1) if microbatch + 1 < self._microbatches else (step + 1, 0)
        return unit

    def _may_give(self) -> bool:
        step = self._next[0]
        return step < min(self._last, self._hold) and (self._bound is None or step - self._version <= self._bound)
