from __future__ import annotations

from thalweg_cluster.launch.cores import check_local, oversubscribed


def test_a_core_takes_sixteen_workers():
    """2 cores: 32 workers are taken, 33 are refused."""
    assert check_local(32, 2) == []
    [problem] = check_local(33, 2)
    assert (problem.field, problem.found) == ("cluster.workers", "33")
    assert "at most 32" in problem.expected


def test_more_workers_than_cores_are_warned_of():
    """2 workers on 2 cores are silent, 32 are not."""
    assert oversubscribed(2, 2) is None
    assert "32 workers share 2 cores" in str(oversubscribed(32, 2))
