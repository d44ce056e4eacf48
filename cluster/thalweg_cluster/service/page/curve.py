"""The curve of a run, in a bounded number of points, however long its metrics.jsonl has become. Pure.

Rules:
  - Of the lines with an evaluation, and of those without, every n-th one is kept, from the first one on. Whenever more
    than POINTS of a sort are there, every other one of these goes, and n is twice as large.
  - Lines that are not kept are not read: most of a long file costs a look for one word.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from thalweg_cluster.service.watching import row_of

POINTS = 512
"""Of each sort, and half as many at least where there are as many."""
NO_EVALUATION = b'"evaluation": null'

Point = dict[str, float]


def point_of(row: dict[str, Any]) -> Point:
    """What a curve has of a row of metrics.jsonl."""
    evaluation, so_far = row.get("evaluation") or {}, row.get("so_far") or {}
    values = {
        "step": row["step"],
        "time_s": row.get("time_s"),
        "train_loss": row.get("train_loss"),
        "eval_loss": evaluation.get("loss"),
        "eval_accuracy": evaluation.get("accuracy"),
        "samples_per_s": row.get("samples_per_s"),
        "learning_rate": row.get("learning_rate"),
        "staleness": (so_far.get("staleness") or {}).get("mean"),
    }
    return {name: value for name, value in values.items() if value is not None}


class Kept(NamedTuple):
    """number: of the line; point: None where the line is no row"""

    number: int
    point: Point | None


class Thinned:
    """Every n-th of the lines that come, at most `most` of them."""

    def __init__(self, most: int) -> None:
        self.kept: list[Kept] = []
        self.every = 1
        self._most = most
        self._count = 0

    def add(self, number: int, line: bytes) -> None:
        if self._count % self.every == 0:
            row = row_of(line)
            self.kept.append(Kept(number, None if row is None else point_of(row)))
            if len(self.kept) > self._most:
                self.kept = self.kept[::2]
                self.every *= 2
        self._count += 1


class Curve:
    """Of one run."""

    def __init__(self, points: int = POINTS) -> None:
        self._sorts = (Thinned(points), Thinned(points))
        self._count = 0
        self._told = 0  # lines up to here were in an update
        self._every = (0, 0)  # as it was then
        self.last = b""

    def add(self, lines: Iterable[bytes]) -> None:
        """Lines of metrics.jsonl that come after those before."""
        for line in lines:
            self._sorts[NO_EVALUATION in line].add(self._count, line)
            self._count += 1
            self.last = line

    def update(self) -> dict[str, Any]:
        """The points that were added since the last time; all, where some of those were dropped."""
        every = (self._sorts[0].every, self._sorts[1].every)
        anew = every != self._every
        since = 0 if anew else self._told
        self._told, self._every = self._count, every
        kept = sorted(each for sort in self._sorts for each in sort.kept if each.number >= since)
        return {"anew": anew, "points": [each.point for each in kept if each.point is not None]}
