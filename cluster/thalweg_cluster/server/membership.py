"""Who takes part in the steps of one host. Pure: ranks go in, and what is to be done comes out.

    meeting --(one is gone, or has joined, or holds up all)--> calling --(all who met are out)--> meeting, as others

Rules:
  - Between two memberships nobody writes what is shared. Each who met says that it is out of the meeting, or is gone:
    its process has ended, so that it cannot wake up and write. Or it is left out: it has lost its permit to write
    (thalweg_proto/permits.py), and is away until it says that it is out.
  - Each membership has a number, the generation; nothing of an earlier one reaches a later one.
"""

from __future__ import annotations

from collections.abc import Iterable, Set


class Membership:
    """members: who meets, by place, or who met until they were called out
    generation: of this membership; 0: there was none yet
    """

    def __init__(self) -> None:
        self.members: tuple[int, ...] = ()
        self.generation = 0
        self.away: set[int] = set()  # who was left out, and has not said that it is out
        self._met: set[int] = set()  # the members that are not gone, nor left out
        self._places: dict[int, tuple[int, int]] = {}
        self._finished: set[int] = set()
        self._missed = False  # whether one is gone that had not finished
        self._awaited: set[int] | None = set()  # who is yet to say that it is out; None: they meet

    @property
    def awaited(self) -> frozenset[int] | None:
        """Who is yet to say that it is out; None: nobody is called."""
        return None if self._awaited is None else frozenset(self._awaited)

    @property
    def finished(self) -> bool:
        """Whether all who meet say that they have nothing more to do."""
        return self._finished.issuperset(self.members)

    def place(self, rank: int) -> tuple[int, int]:
        """The place of one who has met, and how many there were, when it met last."""
        return self._places[rank]

    def leaves(self, rank: int) -> None:
        """A member has nothing more to do, unless others are to meet."""
        self._finished.add(rank)

    def out(self, rank: int) -> None:
        """One who met is out of the meeting, since it was called; or one who was left out is back."""
        self.away.discard(rank)
        if self._awaited is not None:
            self._awaited.discard(rank)

    def leave_out(self, rank: int) -> None:
        """One who is awaited has no permit to write any more, and is not waited for."""
        assert self._awaited is not None  # it was called
        self._awaited.remove(rank)
        self._met.discard(rank)
        self.away.add(rank)

    def gone(self, rank: int) -> None:
        """The process of one who had joined has ended."""
        self._missed |= rank in self._met - self._finished
        self._met.discard(rank)
        self.out(rank)

    def call(self, joined: Set[int], *, held_up: bool = False) -> list[int]:
        """Who is to be called out of the meeting now, given who is there, and whether some hold up all others."""
        if self._awaited is not None or not (self._missed or held_up or joined - self._met - self.away):
            return []
        self._awaited = set(self._met)
        return sorted(self._awaited)

    def ready(self, joined: Set[int]) -> bool:
        """Whether those who are there may meet now."""
        return self._awaited is not None and not self._awaited and bool(joined - self.away)

    def meet(self, ranks: Iterable[int]) -> None:
        """These meet from now on."""
        self.members = tuple(sorted(ranks))
        self._met = set(self.members)
        self._places |= {rank: (place, len(self.members)) for place, rank in enumerate(self.members)}
        self._finished, self._missed, self._awaited = set(), False, None
        self.generation += 1
