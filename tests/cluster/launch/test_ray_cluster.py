from __future__ import annotations

from thalweg_cluster.launch.ray_cluster import check_given


def test_a_given_cluster_must_have_a_cpu_for_each_worker():
    """The message says how many there are."""
    assert check_given(6, [2, 4]) == []
    [problem] = check_given(7, [2, 4])
    assert problem.field == "cluster.workers"
    assert "at most 6: the nodes of the Ray cluster have 2, 4 CPUs" in problem.expected
