"""Where in memory the rows of the vectors are, while workers that were left out still write to theirs. Pure.

    row r at place p, to which a slow worker writes --(left out)--> row r at a spare place; p is the slow worker's
    it has its gradient after all, and nobody else has --> row r at p again
    it is out, or gone --> p is spare

Rules:
  - A place is a row's, or somebody's who was left out, or offered, or spare: one of these at a time.
  - What was left out may offer the gradients that it has computed. Of each microbatch what is whole first is used.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping


class Places:
    """of_rows: where each row is"""

    def __init__(self, rows: int, spares: int, reserve: Callable[[int], bool]) -> None:
        """reserve: gives a spare place its memory; False where there is none to be had"""
        self.of_rows = list(range(rows))
        self._spare = list(range(rows, rows + spares))
        self._reserve = reserve
        self._kept: dict[int, dict[int, int]] = {}  # by rank and microbatch
        self._offers: dict[int, tuple[int, float]] = {}  # by microbatch: where it is, and its loss

    def keep(self, rank: int, rows: Mapping[int, int]) -> bool:
        """A worker is left out, and goes on writing where these rows are, by microbatch: they get other places. False
        where there are none."""
        needed = [row for m, row in rows.items() if m not in self._offers]
        free = self._spare[: len(needed)]
        if len(free) < len(needed) or not all(map(self._reserve, free)):
            return False
        del self._spare[: len(needed)]
        kept = self._kept.setdefault(rank, {})
        for m, row in rows.items():
            kept[m] = self.of_rows[row]
            self.of_rows[row] = self._offers[m][0] if m in self._offers else free.pop(0)
        return True

    def offer(self, rank: int, microbatch: int, row: int, loss: float) -> None:
        """One that was left out has the gradient of a microbatch that goes into that row, and nobody offers it yet; it
        writes no more to it."""
        self._offers[microbatch] = (self._kept.get(rank, {}).pop(microbatch, self.of_rows[row]), loss)

    def offered(self, microbatch: int) -> bool:
        return microbatch in self._offers

    def back(self, rank: int) -> None:
        """One that was left out writes nothing more."""
        self._spare[:0] = self._kept.pop(rank, {}).values()

    def settle(self, wanted: Mapping[int, int]) -> dict[int, float]:
        """Uses what is offered of the microbatches that nobody else has computed, `wanted`, by microbatch the row that
        it goes into; returns their losses. While nobody writes, but those who were left out."""
        used = {}
        for m, (place, loss) in self._offers.items():
            unused = place
            if m in wanted:
                used[m], unused = loss, self.of_rows[wanted[m]]
                self.of_rows[wanted[m]] = place
            if unused not in self.of_rows:
                self._spare.insert(0, unused)
        self._offers.clear()
        return used
