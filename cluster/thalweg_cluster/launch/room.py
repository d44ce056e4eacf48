"""How many workers a run gets, and where, on a cluster that others use, too.

Rules:
  - A run with a fixed number of workers waits until Ray has found room for all of them.
  - One with a least and a most takes what is free, and at least the least.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic, sleep

import ray
from ray.exceptions import GetTimeoutError
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group

from thalweg_proto.errors import RunError
from thalweg_proto.job.sections import ClusterSection

PLACE_S = 60.0
"""How long Ray may take to find room for the workers."""
SETTLE_S = 3.0
"""How long it may take until Ray says that the CPUs of processes that have just ended are free."""
LOOK_S = 0.2
GROW_S = 5.0
"""How often a run that could have more workers looks whether there is room for them."""


def reserve(cluster: ClusterSection, place_s: float) -> tuple[PlacementGroup, int]:
    """A reservation of a CPU for each worker, and for how many it is. RunError where there is no room after `place_s`
    for the least."""
    workers = cluster.least
    if cluster.most > cluster.least:
        until = monotonic() + SETTLE_S
        while (workers := fitting(cluster.least, cluster.most, free_cpus())) < cluster.most and monotonic() < until:
            sleep(LOOK_S)  # Ray tells nobody when CPUs become free
    group = placement_group([{"CPU": 1}] * workers, strategy=cluster.placement)
    try:
        ray.get(group.ready(), timeout=place_s)
    except GetTimeoutError:
        remove_placement_group(group)
        most: float = ray.cluster_resources().get("CPU", 0)  # type: ignore[no-untyped-call]  # Ray gives it no type
        raise RunError(no_room(workers, most, free_cpus(), place_s)) from None
    except BaseException:
        remove_placement_group(group)
        raise
    return group, workers


def free_cpus() -> float:
    """The CPUs of the cluster that nobody uses."""
    free: float = ray.available_resources().get("CPU", 0)  # type: ignore[no-untyped-call]  # nor this
    return free


def fitting(least: int, most: int, free: float) -> int:
    """How many workers a run takes where so many CPUs are free."""
    return max(least, min(most, int(free)))


class Growth:
    """Whether a run that goes on could have more workers."""

    def __init__(self, workers: int, most: int, every_s: float = GROW_S) -> None:
        """It has `workers` of at most `most`; looks every `every_s` seconds."""
        self._more = most - workers
        self._every_s = every_s
        self._next = monotonic() + every_s

    def possible(self, free: Callable[[], float], now: float | None = None) -> bool:
        """Whether there is room for another one; `free` tells how many CPUs nobody uses."""
        now = monotonic() if now is None else now
        if self._more <= 0 or now < self._next:
            return False
        self._next = now + self._every_s
        return free() >= 1


def no_room(workers: int, most: float, free: float, place_s: float) -> str:
    """What to say where the cluster has `most` CPUs, of which `free` were not in use for `place_s`."""
    return (
        f"no room on the Ray cluster within {place_s:g} s: expected {workers} free CPUs, one for each worker; found "
        f"{free:g} free of the cluster's {most:g}. Wait until other jobs on it have ended, lower cluster.workers, or "
        f"add nodes with `ray start --address=...`."
    )
