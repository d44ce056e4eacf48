"""What becomes of a job whose command has ended."""

from __future__ import annotations

import pytest
from tests.cluster.service.rows import row

from thalweg_cluster.service.attempts import Ended, settle
from thalweg_proto.jobs import State


def ended(**values):
    usual = {"status": 0, "summary": None, "log": "last words", "excused": False, "leaving": False, "at": 30.0}
    return Ended(**usual | values)


def summary(state, **values):
    return {"state": state, "error": None, "workers": 3, "steps": 50, "train_loss": 0.5, "samples_per_s": 9.0} | values


@pytest.mark.parametrize("state", ["succeeded", "failed", "cancelled"])
def test_the_summary_says_how_a_run_ended_whatever_the_exit_status(state):
    """With its steps, its loss, its speed, and what it cost: workers times seconds."""
    change = settle(row(worker_seconds=5.0), ended(status=-9, summary=summary(state)))
    assert change.state is State(state)
    expected = {"step": 50, "loss": 0.5, "samples_per_s": 9.0, "worker_seconds": 5.0 + 3 * 20.0, "ended_s": 30.0}
    assert change.values == expected | {"error": ""}


def test_the_error_of_a_run_is_that_of_its_job():
    """As summary.json has it."""
    assert settle(row(), ended(summary=summary("failed", error="NaN"))).values["error"] == "NaN"


def test_a_run_that_came_to_its_end_before_it_was_cancelled_has_succeeded():
    """What has come first stays."""
    assert settle(row(State.CANCELLING), ended(summary=summary("succeeded"))).state is State.SUCCEEDED


def test_a_lost_command_is_started_again_as_often_as_the_job_allows():
    """Then the job has failed, and says how, and what was printed last."""
    job, times = row(max_failures=2), 0
    while (change := settle(job, ended(status=-9))).state is State.QUEUED:
        times += 1
        assert "signal 9" in change.values["error"]
        job = row(max_failures=2, failures=change.values["failures"])
    assert times == 2
    assert change.state is State.FAILED
    for part in ("signal 9", "last words", "more than cluster.max_failures = 2 failures"):
        assert part in change.values["error"]


def test_a_job_without_a_bound_is_started_for_ever():
    """max_failures = -1."""
    assert settle(row(max_failures=-1, failures=1000), ended(status=1)).state is State.QUEUED


@pytest.mark.parametrize("why", ["excused", "leaving"])
def test_what_the_service_has_lost_does_not_count(why):
    """Neither a service that was killed or ends, nor a Ray cluster that was lost."""
    change = settle(row(max_failures=0), ended(status=None, **{why: True}))
    assert change.state is State.QUEUED
    assert "failures" not in change.values


def test_a_command_without_a_summary_that_was_to_end_is_cancelled():
    """Also where it was not the signal that ended it."""
    assert settle(row(State.CANCELLING), ended(status=-15)).state is State.CANCELLED
    assert settle(row(State.CANCELLING), ended(status=1, excused=True)).state is State.CANCELLED


def test_a_job_that_has_become_wrong_is_not_tried_again():
    """Exit status 2: it would be wrong again."""
    change = settle(row(), ended(status=2))
    assert change.state is State.FAILED
    assert "last words" in change.values["error"]


def test_a_run_that_ended_with_the_service_goes_on_with_the_next():
    """It was asked to end by the service, not by a person."""
    assert settle(row(), ended(summary=summary("cancelled"), leaving=True)).state is State.QUEUED
    assert settle(row(State.CANCELLING), ended(summary=summary("cancelled"), leaving=True)).state is State.CANCELLED
    assert settle(row(), ended(summary=summary("succeeded"), leaving=True)).state is State.SUCCEEDED


def test_a_run_that_somebody_else_has_ended_is_cancelled():
    """E.g. by Ctrl-C in `thalweg resume DIR` on the service's machine."""
    assert settle(row(), ended(summary=summary("cancelled"))).state is State.CANCELLED


def test_a_clock_that_was_set_back_costs_nothing():
    """The cost never becomes less."""
    assert settle(row(worker_seconds=5.0), ended(at=1.0, summary=summary("failed"))).values["worker_seconds"] == 5.0
