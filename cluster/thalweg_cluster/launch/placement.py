"""Which host of a Ray cluster gets which worker and which server. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from thalweg_cluster.hosts.spec import Topology
from thalweg_proto.errors import InputError, Problem


@dataclass(frozen=True)
class Placement:
    """A topology, and where it is.

    nodes:   Ray's id of each host, by host
    addresses: the IP address of each host, by host
    bundles: of the placement group, by rank
    """

    topology: Topology
    nodes: tuple[str, ...]
    addresses: tuple[str, ...]
    bundles: tuple[int, ...]


def arrange(node_of_bundle: Sequence[str], here: str, nodes: Mapping[str, str], servers: int) -> Placement:
    """Hosts, ranks and servers for workers that Ray has placed.

    node_of_bundle: the node of each worker's bundle
    here:           the node of the driver; it is the lead's, where it has workers
    nodes:          all nodes of the cluster, and their IP addresses
    servers:        how many servers are on hosts without workers; 0: each host with workers has one

    Ranks of one host are neighbours, so that its microbatches are whole subtrees of the sum. InputError where the
    cluster has too few nodes without workers.
    """
    count = Counter(node_of_bundle)
    hosts = sorted(count, key=lambda node: (node != here, -count[node], node))
    bundles = sorted(range(len(node_of_bundle)), key=lambda bundle: (hosts.index(node_of_bundle[bundle]), bundle))
    ranks, begin = [], 0
    for node in hosts:
        ranks.append(range(begin, begin + count[node]))
        begin += count[node]
    owns = [servers == 0] * len(hosts)
    free = sorted(set(nodes) - set(hosts))
    if servers > len(free):
        found = f"{servers}; {len(count)} of the cluster's {len(nodes)} nodes have workers"
        hint = 'with placement = "PACK" workers take fewer nodes'
        raise InputError([Problem("cluster.servers", f"at most {len(free)}, the nodes without workers", found, hint)])
    alone = free[:servers]
    return Placement(
        topology=Topology(ranks=(*ranks, *[range(begin, begin)] * servers), owns=(*owns, *[True] * servers)),
        nodes=(*hosts, *alone),
        addresses=tuple(nodes[node] for node in (*hosts, *alone)),
        bundles=tuple(bundles),
    )
