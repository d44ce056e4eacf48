"""How many workers the cores of this machine take, where the Ray cluster is one of our own. Knows nothing of Ray."""

from __future__ import annotations

from dataclasses import dataclass

from thalweg_proto.errors import Problem

WORKERS_PER_CORE_MAX = 16
"""More workers than cores only wait for each other; so many are somebody's slip."""


@dataclass(frozen=True)
class Oversubscribed:
    """More workers than cores: it runs, but tells nothing about speed."""

    workers: int
    cores: int

    def __str__(self) -> str:
        return f"{self.workers} workers share {self.cores} cores: the result is the same, the speed is not"


def check_local(workers: int, cores: int) -> list[Problem]:
    """Whether a cluster of our own on a machine of `cores` cores takes `workers` workers."""
    most = WORKERS_PER_CORE_MAX * cores
    if workers <= most:
        return []
    expected = f"at most {most}, {WORKERS_PER_CORE_MAX} for each of the {cores} cores of this machine"
    return [Problem("cluster.workers", expected, str(workers), "start a Ray cluster and set RAY_ADDRESS")]


def oversubscribed(workers: int, cores: int) -> Oversubscribed | None:
    """What to warn of where `cores` cores take `workers` workers; None: nothing."""
    return Oversubscribed(workers, cores) if workers > cores else None
