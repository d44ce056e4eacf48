from __future__ import annotations

import pytest

from thalweg_cluster.launch.ray_cluster import check_given
from thalweg_cluster.resources import Resources

NODES = [Resources(2), Resources(4)]


def test_a_given_cluster_must_have_a_cpu_for_each_worker():
    """The message says how many there are."""
    assert check_given(6, 0.0, NODES) == []
    [problem] = check_given(7, 0.0, NODES)
    assert problem.field == "cluster.workers"
    assert "at most 6: the nodes of the Ray cluster have 2, 4 CPUs" in problem.expected


@pytest.mark.parametrize(
    ("workers", "gpus_per_worker", "nodes", "expected", "found"),
    [
        (1, 1.0, NODES, "at most 0 with 1 of a GPU each: Ray finds 0 GPUs", "1, which need 1 GPU"),
        (3, 1.0, [Resources(8, 2)], "at most 2 with 1 of a GPU each: Ray finds 2 GPUs", "3, which need 3 GPUs"),
        (5, 0.5, [Resources(8, 2)], "at most 4 with 0.5 of a GPU each: Ray finds 2 GPUs", "5, which need 2.5 GPUs"),
        # A share lies on one GPU, and its worker beside it.
        (3, 0.6, [Resources(8, 2)], "at most 2 with 0.6 of a GPU each: Ray finds 2 GPUs", "3, which need 1.8 GPUs"),
        (2, 1.0, [Resources(1, 4), Resources(8)], "finds 4 GPUs, and too few CPUs beside them", "2, which need 2 GPUs"),
    ],
)
def test_a_cluster_must_have_a_gpu_or_its_share_for_each_worker(workers, gpus_per_worker, nodes, expected, found):
    """One problem: how many there are and how many are asked for; one worker less would do."""
    [problem] = check_given(workers, gpus_per_worker, nodes)
    assert problem.field == "cluster.workers"
    assert expected in problem.expected
    assert problem.found == found
    if "at most 0" not in expected:
        assert check_given(workers - 1, gpus_per_worker, nodes) == []
