from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thalweg_cluster.hosts.spec import Parts, Topology
from thalweg_cluster.step import StepSpec
from thalweg_cluster.summation import split, sum_plan

WORKERS = st.lists(st.integers(0, 4), min_size=1, max_size=6).map(lambda counts: [counts[0] + 1, *counts[1:]])


def topology(workers: list[int]) -> Topology:
    """Hosts with so many workers each."""
    ends = [sum(workers[: host + 1]) for host in range(len(workers))]
    ranks = tuple(range(end - count, end) for end, count in zip(ends, workers, strict=True))
    return Topology(ranks=ranks, owns=(True,) * len(workers))


def parts(workers: list[int], microbatches: int, local_steps: int = 1) -> Parts:
    step = StepSpec(microbatches=microbatches, batch_size=microbatches, steps=9, rule="sgd", local_steps=local_steps)
    return Parts.of(topology(workers), step)


def test_hosts_and_workers_are_counted():
    """Those without workers are hosts, too."""
    two_and_one = topology([2, 0, 1])
    assert (two_and_one.hosts, two_and_one.workers) == (3, 3)
    assert [two_and_one.host_of(rank) for rank in range(3)] == [0, 0, 2]


@given(WORKERS)
def test_a_worker_is_on_the_host_that_has_its_rank(workers):
    """Of each rank there is one."""
    found = topology(workers)
    for rank in range(sum(workers)):
        assert rank in found.ranks[found.host_of(rank)]


def test_parts_by_hand():
    """8 microbatches, 3 workers on 3 hosts, of which one has none: 2, 3 and 3 of them."""
    found = parts([2, 0, 1], 8)
    assert found.total == 8
    assert found.of_rank == (range(0, 2), range(2, 5), range(5, 8))
    assert found.of_host == (range(0, 5), range(0), range(5, 8))
    assert found.leaves(0) == [(0, 4), (4, 5)]
    assert found.leaves(1) == []
    assert found.leaves(2) == [(5, 6), (6, 8)]


def test_with_local_steps_each_worker_has_one_part():
    """However many microbatches it takes in its own steps."""
    found = parts([2, 1], 8, local_steps=4)
    assert found.total == 3
    assert found.of_rank == (range(0, 1), range(1, 2), range(2, 3))
    assert found.of_host == (range(0, 2), range(2, 3))


def whole_node(leaf: tuple[int, int], total: int) -> bool:
    """Whether a leaf is a node of the summation tree over all parts."""
    begin, end = 0, total
    while (begin, end) != leaf and end - begin > 1:
        middle = split(begin, end)
        begin, end = (begin, middle) if leaf[1] <= middle else (middle, end)
    return (begin, end) == leaf


@given(WORKERS, st.integers(0, 30), st.sampled_from([1, 3]))
def test_every_part_is_computed_once_and_handed_on_once(workers, more, local_steps):
    """Hosts have what their workers have; what they hand on are whole nodes that the sum can go on from."""
    found = parts(workers, sum(workers) + more, local_steps)
    everything = list(range(found.total))
    assert [part for rank in found.of_rank for part in rank] == everything
    assert [part for host in found.of_host for part in host] == everything
    for host, ranks in enumerate(topology(workers).ranks):
        assert [part for rank in ranks for part in found.of_rank[rank]] == list(found.of_host[host])
        leaves = found.leaves(host)
        assert [part for leaf in leaves for part in range(*leaf)] == list(found.of_host[host])
        assert all(whole_node(leaf, found.total) for leaf in leaves)
    sum_plan(tuple(leaf for host in range(len(workers)) for leaf in found.leaves(host)))


@pytest.mark.parametrize("hosts", [1, 2, 4])
def test_hosts_of_a_power_of_two_hand_on_one_sum_each(hosts):
    """Where workers and microbatches are one, too."""
    found = parts([2] * hosts, 16)
    assert [len(found.leaves(host)) for host in range(hosts)] == [1] * hosts
