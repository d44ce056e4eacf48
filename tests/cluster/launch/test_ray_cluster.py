from __future__ import annotations

from thalweg_cluster.launch.ray_cluster import check_given, check_local


def test_a_cluster_of_our_own_may_be_oversubscribed_sixteenfold_with_a_warning():
    """2 cores: 2 workers are silent, 3 to 32 warn, 33 are refused."""
    assert check_local(2, 2) == ([], None)
    problems, warning = check_local(32, 2)
    assert problems == []
    assert "32 workers share 2 cores" in str(warning)
    [problem], _ = check_local(33, 2)
    assert (problem.field, problem.found) == ("cluster.workers", "33")
    assert "at most 32" in problem.expected


def test_a_given_cluster_must_have_a_cpu_for_each_worker():
    """The message says how many there are."""
    assert check_given(4, [2, 4]) == []
    [problem] = check_given(5, [2, 4])
    assert problem.field == "cluster.workers"
    assert "4 CPUs (6 in all)" in problem.expected
