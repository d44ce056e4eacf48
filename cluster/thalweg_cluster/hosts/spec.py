"""What the server of one host is told when it is made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from thalweg_cluster.checkpoints.replicas import Memory
from thalweg_cluster.checkpoints.saver import SaveSpec
from thalweg_cluster.security.run import RunSecurity
from thalweg_cluster.step import StepSpec
from thalweg_cluster.summation import Range, subtrees
from thalweg_proto.faults import PlannedFaults
from thalweg_proto.layout import Layout
from thalweg_proto.shares import share

LOOPBACK = "127.0.0.1"


class Doors(NamedTuple):
    """The addresses of a server's gRPC doors, for clients and for other hosts; where there are none, both are one."""

    clients: str
    hosts: str


@dataclass(frozen=True, kw_only=True)
class Topology:
    """Which host does what.

    ranks: of the workers of each host, by host: contiguous, ascending; empty where a host has none. Host 0, the lead,
           has some
    owns:  for each host whether it owns a shard
    """

    ranks: tuple[range, ...]
    owns: tuple[bool, ...]

    @property
    def hosts(self) -> int:
        return len(self.ranks)

    @property
    def workers(self) -> int:
        return max(ranks.stop for ranks in self.ranks)

    def host_of(self, rank: int) -> int:
        """The host of a worker."""
        return next(host for host, ranks in enumerate(self.ranks) if rank in ranks)


@dataclass(frozen=True, kw_only=True)
class ServedSpec:
    """One server of one job.

    host:         which one it is
    address:      name of the abstract Unix socket on which it waits for its host's workers
    bind:         the IP address that its gRPC doors listen on
    security:     what they ask for
    wire:         the format of gradients between hosts; `wire_fraction` is topk's
    wire_parameters: the format of parameters
    block:        elements of a block; None: what fits the shards' size
    connect_s:    how long a peer may take to answer before the run begins
    patience_s:   how long a host may say nothing at all before it counts as lost
    save:         where checkpoints go; None: nowhere
    memories:     where replicas go, by host
    replicate_every_s: seconds at least between two replicas; 0: there are none
    lease_s:      how long a worker may at least be at one piece of work (leases.py)
    metrics_port: of /metrics on loopback; 0: a free one
    faults:       what shall go wrong
    """

    host: int
    address: str
    job_id: str
    generation: int = 1
    layout: Layout
    topology: Topology
    step: StepSpec
    bind: str = LOOPBACK
    security: RunSecurity = field(default_factory=RunSecurity)
    wire: str = "float32"
    wire_fraction: float | None = None
    wire_parameters: str = "float32"
    block: int | None = None
    connect_s: float = 10.0
    patience_s: float = 30.0
    save: SaveSpec | None = None
    memories: Sequence[Memory] = ()
    replicate_every_s: float = 0.0
    lease_s: float = 30.0
    metrics_port: int = 0
    faults: PlannedFaults = field(default_factory=PlannedFaults)


@dataclass(frozen=True)
class Parts:
    """The gradients that a step is summed from, and where they are computed.

    total:   how many there are: microbatches, or with local steps workers
    of_rank: which parts each worker computes, by rank
    of_host: which parts each host has, by host
    """

    total: int
    of_rank: tuple[range, ...]
    of_host: tuple[range, ...]

    @classmethod
    def of(cls, topology: Topology, step: StepSpec) -> Parts:
        workers = topology.workers
        total = workers if step.local_steps > 1 else step.microbatches
        of_rank = tuple(share(total, rank, workers) for rank in range(workers))
        of_host = tuple(
            range(of_rank[ranks.start].start, of_rank[ranks.stop - 1].stop) if ranks else range(0)
            for ranks in topology.ranks
        )
        return cls(total, of_rank, of_host)

    def leaves(self, host: int) -> list[Range]:
        """The whole nodes of the summation tree whose sums a host hands on."""
        parts = self.of_host[host]
        return subtrees(parts.start, parts.stop, self.total) if parts else []
