"""What somebody who has the page open is told, a line at a time."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Mapping
from time import monotonic
from typing import Any

from thalweg_cluster.client.jobs import Job
from thalweg_cluster.service.page.following import Following
from thalweg_cluster.service.showing import Showing
from thalweg_cluster.service.table import JobRow, JobTable
from thalweg_proto.jobs import LIST_DEFAULT, State

JobNow = dict[str, Any]
LOOK_S = 0.2
"""How old may be what was found at the last look."""


class JobsNow:
    """The newest jobs and those that run: looked up once for all who have the page open. Any thread may call."""

    def __init__(self, table: JobTable, showing: Showing, clock: Callable[[], float] = monotonic) -> None:
        self._table = table
        self._showing = showing
        self._clock = clock
        self._lock = threading.Lock()
        self._looked_s = -LOOK_S
        self._found: dict[str, JobNow] = {}
        self._counts: dict[str, int] = {}

    def look(self) -> tuple[dict[str, JobNow], dict[str, int]]:
        """Jobs by id, and how many there are in each state. Nobody changes what is returned."""
        with self._lock:
            now_s = self._clock()
            if now_s - self._looked_s >= LOOK_S:
                states = (None, State.RUNNING, State.CANCELLING)
                rows = {row.id: row for state in states for row in self._table.newest(LIST_DEFAULT, state=state)}
                self._found = {str(row.id): self.job(row) for row in rows.values()}
                self._counts = {state.value: count for state, count in self._table.count_by_state().items()}
                self._looked_s = now_s
            return self._found, self._counts

    def old(self, job_id: str) -> dict[str, JobNow]:
        """A job that may not be among those that are looked up, by its id; {}: there is none."""
        row = self._table.get(int(job_id))
        return {} if row is None else {job_id: self.job(row)}

    def job(self, row: JobRow) -> JobNow:
        """As the page's API has it."""
        return dataclasses.asdict(Job.of(self._showing.message(row)))


class Listener:
    """One who has the page open."""

    def __init__(self, jobs: JobsNow, job_id: str | None, following: Following | None) -> None:
        """`job_id`, `following`: what he looks at; None: nothing."""
        self._jobs = jobs
        self._job_id = job_id
        self._following = following
        self._told: Mapping[str, JobNow] = {}
        self._counts: dict[str, int] | None = None

    def news(self) -> dict[str, Any]:
        """What he has not heard yet; {}: nothing."""
        found, counts = self._jobs.look()
        if self._job_id is not None and self._job_id not in found:
            found = found | self._jobs.old(self._job_id)
        news: dict[str, Any] = {}
        if jobs := changed(self._told, found):
            news["jobs"] = jobs
        if counts != self._counts:
            news["counts"] = counts
        self._told, self._counts = found, counts
        if self._following is not None:
            ended = State(found[self._job_id]["state"]).ended if self._job_id in found else True
            if run := self._following.news(ended=ended):
                news["run"] = run
        return news


def changed(before: Mapping[str, JobNow], now: Mapping[str, JobNow]) -> list[JobNow]:
    """The jobs that are another way now, or were not there before. What one costs grows all the time: that is none."""

    def without_cost(job: JobNow | None) -> JobNow | None:
        return None if job is None else job | {"worker_seconds": 0}

    return [job for job_id, job in now.items() if without_cost(before.get(job_id)) != without_cost(job)]
