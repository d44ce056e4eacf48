from __future__ import annotations

import pytest

from thalweg_cluster.launch.failures import Failures, Loss

WORKER, SERVER = Loss("worker", 1, "its process died"), Loss("server", 0, "its process died")


@pytest.mark.parametrize(("bound", "allowed"), [(0, 0), (1, 1), (3, 3), (-1, 50)])
def test_a_run_goes_on_as_often_as_the_job_allows(bound, allowed):
    """-1 is always."""
    failures = Failures(bound)
    found = [failures.may_go_on([WORKER]) for _ in range(50)]
    assert found == [True] * allowed + [False] * (50 - allowed)
    assert failures.times == allowed


def test_what_died_at_one_time_is_one_failure():
    """All workers together count once, and each is in the summary."""
    failures = Failures(1)
    assert failures.may_go_on([WORKER, WORKER._replace(number=0), SERVER])
    assert failures.restarts == {"worker": 2, "server": 1}
    assert failures.allowed == "1 of 1"


def test_the_causes_are_grouped_by_who_and_how():
    """As a person reads them."""
    failures = Failures(2)
    for losses in ([WORKER], [WORKER, SERVER], [WORKER]):
        failures.may_go_on(losses)
    assert failures.describe() == (
        "more than cluster.max_failures = 2 failures:\n"
        "  3 x worker 1: its process died\n"
        "  1 x the server of host 0: its process died"
    )
