"""Jobs as they are now: what the table has of them, what the keeper knows, and what their runs have written."""

from __future__ import annotations

from time import time

from thalweg_cluster.reporting.files import METRICS
from thalweg_cluster.service.keeper import Keeper
from thalweg_cluster.service.messages import job_message
from thalweg_cluster.service.table import JobRow
from thalweg_cluster.service.watching import newest_row
from thalweg_proto.jobs import State
from thalweg_proto.v1 import job_service_pb2 as pb

CANCELLABLE = "one that waits or runs"
"""What a job has to be that is to be cancelled."""


class Showing:
    """Any thread may call."""

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper

    def message(self, job: JobRow) -> pb.Job:
        folder = self._keeper.folder(job.id)
        newest = newest_row(folder / METRICS) if job.state.started else None
        why = self._keeper.why.get(job.id, "")
        return job_message(job, why=why, folder=folder, newest=newest, now=time())


def wrong_state(job: JobRow, expected: str) -> str:
    """What to say to who wanted something of a job that its state does not allow."""
    found = "one that is being cancelled" if job.state is State.CANCELLING else f"one that is {job.state.value}"
    return f"job {job.id}: expected {expected}; found {found}"
