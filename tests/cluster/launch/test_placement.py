from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thalweg_cluster.launch.placement import arrange
from thalweg_proto.errors import InputError

NODES = {"a": "10.0.0.1", "b": "10.0.0.2", "c": "10.0.0.3", "d": "10.0.0.4"}


def test_a_placement_by_hand():
    """Bundles on c, a, c, b; the driver on a: host 0 is a, then c with two ranks, then b."""
    found = arrange(["c", "a", "c", "b"], "a", NODES, servers=0)
    assert found.nodes == ("a", "c", "b")
    assert found.addresses == ("10.0.0.1", "10.0.0.3", "10.0.0.2")
    assert found.topology.ranks == (range(0, 1), range(1, 3), range(3, 4))
    assert found.topology.owns == (True, True, True)
    assert found.bundles == (1, 0, 2, 3)


def test_the_drivers_node_is_the_leads_though_others_have_more_workers():
    """What the lead says to the driver then stays on one machine."""
    assert arrange(["b", "b", "a"], "a", NODES, servers=0).nodes == ("a", "b")


def test_where_the_driver_has_no_workers_the_node_with_most_is_the_leads():
    """Among equals the first by its id, whatever the order of the bundles."""
    assert arrange(["b", "c", "c"], "a", NODES, servers=0).nodes == ("c", "b")
    assert arrange(["c", "b"], "a", NODES, servers=0).nodes == ("b", "c")


def test_servers_asked_for_are_alone_on_nodes_without_workers():
    """They own all; hosts with workers own nothing, and the driver's node may be a server's."""
    found = arrange(["b", "b"], "a", NODES, servers=2)
    assert found.nodes == ("b", "a", "c")
    assert found.addresses == ("10.0.0.2", "10.0.0.1", "10.0.0.3")
    assert found.topology.ranks == (range(0, 2), range(2, 2), range(2, 2))
    assert found.topology.owns == (False, True, True)
    assert (found.topology.hosts, found.topology.workers) == (3, 2)


def test_more_servers_than_nodes_without_workers_are_refused():
    """With how many there may be, what was found, and what to do."""
    assert arrange(["a", "b"], "a", NODES, servers=2).topology.hosts == 4
    with pytest.raises(InputError) as refused:
        arrange(["a", "b", "a"], "a", NODES, servers=3)
    assert str(refused.value) == (
        "cluster.servers: expected at most 2, the nodes without workers; "
        "found 3; 2 of the cluster's 4 nodes have workers\n"
        '    with placement = "PACK" workers take fewer nodes'
    )


@given(st.lists(st.sampled_from(sorted(NODES)), min_size=1, max_size=12), st.sampled_from(sorted(NODES)), st.data())
def test_every_worker_is_where_its_bundle_is(node_of_bundle, here, data):
    """Ranks of a host are neighbours; each bundle is one rank's; every node is at most one host's."""
    free = set(NODES) - set(node_of_bundle)
    servers = data.draw(st.integers(0, len(free)))
    found = arrange(node_of_bundle, here, NODES, servers)
    assert [rank for ranks in found.topology.ranks for rank in ranks] == list(range(len(node_of_bundle)))
    assert sorted(found.bundles) == list(range(len(node_of_bundle)))
    for rank, bundle in enumerate(found.bundles):
        assert found.nodes[found.topology.host_of(rank)] == node_of_bundle[bundle]
    assert len(set(found.nodes)) == len(found.nodes)
    assert set(found.nodes) == set(node_of_bundle) | set(found.nodes[len(found.nodes) - servers :])
    assert found.addresses == tuple(NODES[node] for node in found.nodes)
    assert here not in node_of_bundle or found.nodes[0] == here
    assert [bool(ranks) for ranks in found.topology.ranks] == [node in node_of_bundle for node in found.nodes]
    alone = [not ranks for ranks in found.topology.ranks]
    assert list(found.topology.owns) == (alone if servers else [True] * len(alone))
