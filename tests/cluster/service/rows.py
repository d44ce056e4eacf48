"""Jobs as tests need them."""

from __future__ import annotations

from typing import Any

from thalweg_cluster.service.table import JobRow, Submission
from thalweg_proto.jobs import State


def submission(request_id: str = "request-1", **values: Any) -> Submission:
    usual: dict[str, Any] = {
        "digest": "d", "name": "digits", "priority": 0, "workers": 2, "max_failures": 3, "submitted_s": 1.0,
    }  # fmt: skip
    return Submission(request_id=request_id, **usual | values)


def row(state: State = State.RUNNING, **values: Any) -> JobRow:
    usual: dict[str, Any] = {
        "request_id": "request-1", "digest": "d", "name": "digits", "priority": 0, "workers": 2, "max_failures": 3,
        "submitted_s": 1.0, "id": 1, "started_s": 10.0, "attempts": 1, "cluster": "here:1",
    }  # fmt: skip
    return JobRow(state=state, **usual | values)
