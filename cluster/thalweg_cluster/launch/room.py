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

from thalweg_cluster.resources import Resources, counted
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
    """A reservation of a CPU and the GPU, or share of one, of each worker, and for how many it is. RunError where there
    is no room after `place_s` for the least."""
    workers, gpus = cluster.least, cluster.gpus_per_worker
    if cluster.most > cluster.least:
        until = monotonic() + SETTLE_S
        while (workers := fitting(cluster.least, cluster.most, free(), gpus)) < cluster.most and monotonic() < until:
            sleep(LOOK_S)  # Ray tells nobody when CPUs become free
    bundle = {"CPU": 1.0, "GPU": gpus} if gpus else {"CPU": 1.0}
    group = placement_group([bundle] * workers, strategy=cluster.placement)
    try:
        ray.get(group.ready(), timeout=place_s)
    except GetTimeoutError:
        remove_placement_group(group)
        there: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]  # Ray gives it no type
        raise RunError(no_room(workers, gpus, Resources.of(there), free(), place_s)) from None
    except BaseException:
        remove_placement_group(group)
        raise
    return group, workers


def free() -> Resources:
    """What nobody uses of the cluster."""
    unused: dict[str, float] = ray.available_resources()  # type: ignore[no-untyped-call]  # nor this
    return Resources.of(unused)


def fitting(least: int, most: int, unused: Resources, gpus_per_worker: float) -> int:
    """How many workers a run takes where so much is free."""
    return max(least, min(most, unused.workers(gpus_per_worker)))


class Growth:
    """Whether a run that goes on could have more workers."""

    def __init__(self, workers: int, most: int, gpus_per_worker: float = 0.0, every_s: float = GROW_S) -> None:
        """It has `workers` of at most `most`; looks every `every_s` seconds."""
        self._more = most - workers
        self._gpus_per_worker = gpus_per_worker
        self._every_s = every_s
        self._next = monotonic() + every_s

    def possible(self, unused: Callable[[], Resources], now: float | None = None) -> bool:
        """Whether there is room for another one; `unused` tells what nobody uses."""
        now = monotonic() if now is None else now
        if self._more <= 0 or now < self._next:
            return False
        self._next = now + self._every_s
        return unused().workers(self._gpus_per_worker) >= 1


def no_room(workers: int, gpus_per_worker: float, there: Resources, unused: Resources, place_s: float) -> str:
    """What to say where so much of what is `there` was not in use for `place_s`."""
    gpus = gpus_found = ""
    if gpus_per_worker:
        gpus = f" and {gpus_per_worker:g} of a GPU"
        gpus_found = f", {unused.gpus:g} of its {counted(there.gpus, 'GPU')}"
    return (
        f"no room on the Ray cluster within {place_s:g} s: expected {workers} free CPUs, one{gpus} for each worker; "
        f"found {unused.cpus:g} free of the cluster's {there.cpus:g}{gpus_found}. Wait until other jobs on it have "
        f"ended, lower cluster.workers, or add nodes with `ray start --address=...`."
    )
