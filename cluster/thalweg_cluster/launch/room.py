"""Waits until Ray has found room for a run on a cluster that others use, too."""

from __future__ import annotations

import ray
from ray.exceptions import GetTimeoutError
from ray.util.placement_group import PlacementGroup

from thalweg_proto.errors import RunError

PLACE_S = 60.0
"""How long Ray may take to find room for the workers."""


def wait_for_room(group: PlacementGroup, workers: int, place_s: float) -> None:
    """Returns once Ray has reserved a CPU for each of `workers` workers; RunError where it has none after `place_s`."""
    try:
        ray.get(group.ready(), timeout=place_s)
    except GetTimeoutError:
        most: float = ray.cluster_resources().get("CPU", 0)  # type: ignore[no-untyped-call]  # Ray gives it no type
        free: float = ray.available_resources().get("CPU", 0)  # type: ignore[no-untyped-call]  # nor this
        raise RunError(no_room(workers, most, free, place_s)) from None


def no_room(workers: int, most: float, free: float, place_s: float) -> str:
    """What to say where the cluster has `most` CPUs, of which `free` were not in use for `place_s`."""
    return (
        f"no room on the Ray cluster within {place_s:g} s: expected {workers} free CPUs, one for each worker; found "
        f"{free:g} free of the cluster's {most:g}. Wait until other jobs on it have ended, lower cluster.workers, or "
        f"add nodes with `ray start --address=...`."
    )
