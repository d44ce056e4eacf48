from __future__ import annotations

from thalweg_cluster.launch.failures import describe_failures


def test_nothing_failed_gives_nothing():
    """A run that went well has no error."""
    assert describe_failures({}, server=None, step=3) is None


def test_the_same_failure_of_many_workers_is_told_once():
    """Ranks are grouped by what they said."""
    text = describe_failures({2: "no", 0: "no", 1: "boom"}, server="worker 2 is gone", step=1200)
    assert text == "workers 0, 2 failed after 1,200 steps: no\nworker 1 failed after 1,200 steps: boom"


def test_the_server_speaks_where_no_worker_did():
    """The server's own failure stands alone."""
    assert describe_failures({}, server="step 3: the loss is nan", step=3) == "step 3: the loss is nan"
