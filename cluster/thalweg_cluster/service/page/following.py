"""What is new of one run, from the files in its folder: its curve, its workers, what died."""

from __future__ import annotations

from collections import deque
from pathlib import Path
from typing import Any

from thalweg_cluster.reporting.files import METRICS, RECORD
from thalweg_cluster.service.keeper import read_json
from thalweg_cluster.service.page.curve import Curve, point_of
from thalweg_cluster.service.page.workers import by_worker, window
from thalweg_cluster.service.watching import Lines, row_of

KEPT = 24
"""Lines with `so_far`: two a second at most, so that WINDOW_S has some."""
SO_FAR = b'"so_far": {'


class Following:
    """Of one run, for one who looks at it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lines = Lines(folder / METRICS)
        self._begin()
        self._anew = 0
        self._ended = False
        self._losses: Any = None

    def _begin(self) -> None:
        self._curve = Curve()
        self._reached: deque[bytes] = deque(maxlen=KEPT)

    def news(self, *, ended: bool) -> dict[str, Any]:
        """What there is that was not told before, as the page's API has it; {}: nothing.

        ended: the workers' times are those of all of the attempt
        """
        news: dict[str, Any] = {}
        fresh = 0
        for line in self._lines.new():
            if self._lines.anew != self._anew:
                self._anew = self._lines.anew
                self._begin()
            fresh += 1
            self._curve.add([line])
            if SO_FAR in line:
                self._reached.append(line)
        if fresh:
            news["curve"] = self._curve.update()
            if (row := row_of(self._curve.last)) is not None:
                news["newest"] = point_of(row)
        if self._reached and (fresh or ended != self._ended):
            news |= self._figures(ended)
            self._ended = ended
        record = read_json(self._folder / RECORD)  # None: it has not begun
        losses = [] if record is None else record.get("losses", [])
        if losses != self._losses:
            self._losses = news["losses"] = losses
        return news

    def _figures(self, ended: bool) -> dict[str, Any]:
        told = [row["so_far"] for line in self._reached if (row := row_of(line)) is not None]
        before, now = (None, told[-1]) if ended else window(told)
        return {
            "workers": by_worker(before, now),
            "window_s": None if before is None else now["time_s"] - before["time_s"],
            **{name: now[name] for name in ("staleness", "checkpoints", "skipped")},
        }
