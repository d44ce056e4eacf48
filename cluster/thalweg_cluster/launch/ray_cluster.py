"""The Ray cluster to run on: one of our own on this machine, or the one that RAY_ADDRESS names."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from collections.abc import Iterator, Sequence
from typing import Any

import ray

from thalweg_cluster.launch.cores import Oversubscribed, oversubscribed
from thalweg_cluster.launch.lean_ray import lean_node
from thalweg_cluster.resources import Resources, counted, gpus_for, on_gpus
from thalweg_proto.errors import InputError, Problem
from thalweg_proto.job.sections import ClusterSection

CONNECT_S = 5.0


def check_given(workers: int, gpus_per_worker: float, nodes: Sequence[Resources]) -> list[Problem]:
    """Whether a cluster of these nodes has a CPU for each of `workers` workers, and a GPU, or a share of one."""
    add = "add nodes with `ray start --address=...`"
    most = sum(node.workers(0.0) for node in nodes)
    if workers > most:
        by_node = ", ".join(f"{int(node.cpus)}" for node in nodes)
        expected = f"at most {most}: the nodes of the Ray cluster have {by_node} CPUs"
        return [Problem("cluster.workers", expected, str(workers), add)]
    most = sum(node.workers(gpus_per_worker) for node in nodes)
    if workers <= most:
        return []
    there = counted(sum(node.gpus for node in nodes), "GPU")
    expected = f"at most {most} with {gpus_per_worker:g} of a GPU each: Ray finds {there}"
    if most < sum(on_gpus(node.gpus, gpus_per_worker) for node in nodes):
        expected += ", and too few CPUs beside them"
    found = f"{workers}, which need {counted(gpus_for(workers, gpus_per_worker), 'GPU')}"
    hint = f"{add} where there are more; `nvidia-smi` shows those of a machine, CUDA_VISIBLE_DEVICES hides them"
    return [Problem("cluster.workers", expected, found, hint)]


def nodes_of() -> list[Resources]:
    """What each node of the cluster has that this process is joined to."""
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]  # Ray gives it no type
    return [Resources.of(node["Resources"]) for node in nodes if node["Alive"]]


def why_nobody_answers(address: str) -> OSError | None:
    """What happens when one calls `address`; None where somebody answers, or where that cannot be found out."""
    host, _, port = address.rpartition(":")
    if host and port.isdigit() and "/" not in host:
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_S).close()
        except OSError as error:
            return error
    return None


def connect(address: str) -> None:
    """Joins the cluster at `address`. Raises InputError where none answers there, or it does not let us in."""
    expected = "the address of a Ray cluster"
    # Ray itself would try for minutes, and then end the process.
    if (why := why_nobody_answers(address)) is not None:
        hint = "start one with `ray start --head`, or unset RAY_ADDRESS to run on this machine alone"
        raise InputError([Problem("RAY_ADDRESS", expected, f"{address!r}: {why}", hint)])
    quiet()
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except Exception as error:  # Ray raises a different one for each way in which it cannot connect
        hint = "ray start --head turns token authentication on: set RAY_AUTH_MODE=token here as well"
        raise InputError([Problem("RAY_ADDRESS", expected, f"{address!r}: {error}", hint)]) from error


def quiet() -> None:
    """Before Ray is started or joined: what it would say, and to whom, by itself."""
    # Ray asks on the terminal, and reports to its makers, unless told.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # What Ray will do with accelerators one day is not our user's to read on each run.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")


def start(cpus: int) -> None:
    """A cluster of our own on this machine, which has `cpus` CPUs, whatever it has in truth, and the GPUs that Ray
    finds."""
    quiet()
    # By default Ray's actors give way to everything else on the machine. On this one there is nothing else to do.
    os.environ.setdefault("RAY_worker_niceness", "0")
    with lean_node():
        ray.init(num_cpus=cpus, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)


@contextlib.contextmanager
def ray_cluster(cluster: ClusterSection, address: str | None) -> Iterator[Oversubscribed | None]:
    """Connects to Ray for the length of the block; yields what to warn of.

    address: of the cluster to join; None for one of our own, which takes what `check_local` lets pass

    Raises InputError where the cluster at `address` cannot be reached, or either has too few CPUs or GPUs.
    """
    cores = len(os.sched_getaffinity(0))
    if address is None:
        warning = oversubscribed(cluster.most, cores)
        # So many processes Ray starts ahead: one for each worker, one for the server, one for the coordinator.
        start(cluster.most + 2)
    else:
        warning = None
        connect(address)
    try:
        if problems := check_given(cluster.least, cluster.gpus_per_worker, nodes_of()):
            raise InputError(problems)
        yield warning
    finally:
        ray.shutdown()
