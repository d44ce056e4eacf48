"""The Ray cluster to run on: one of our own on this machine, or the one that RAY_ADDRESS names."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from collections.abc import Iterator
from typing import Any

import ray

from thalweg_cluster.launch.cores import Oversubscribed, oversubscribed
from thalweg_cluster.launch.lean_ray import lean_node
from thalweg_proto.errors import InputError, Problem
from thalweg_proto.job.sections import ClusterSection

CONNECT_S = 5.0


def check_given(workers: int, cpus_by_node: list[int]) -> list[Problem]:
    """Whether a given cluster has a CPU for each of `workers` workers."""
    most = sum(cpus_by_node)
    if workers <= most:
        return []
    by_node = ", ".join(map(str, cpus_by_node))
    expected = f"at most {most}: the nodes of the Ray cluster have {by_node} CPUs"
    return [Problem("cluster.workers", expected, str(workers), "add nodes with `ray start --address=...`")]


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
    """A cluster of our own on this machine, which has `cpus` CPUs, whatever it has in truth."""
    quiet()
    # By default Ray's actors give way to everything else on the machine. On this one there is nothing else to do.
    os.environ.setdefault("RAY_worker_niceness", "0")
    with lean_node():
        ray.init(num_cpus=cpus, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)


@contextlib.contextmanager
def ray_cluster(cluster: ClusterSection, address: str | None) -> Iterator[Oversubscribed | None]:
    """Connects to Ray for the length of the block; yields what to warn of.

    address: of the cluster to join; None for one of our own, which takes what `check_local` lets pass

    Raises InputError where the cluster at `address` cannot be reached or has too few CPUs.
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
        if address is not None:
            nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]  # Ray gives it no type
            cpus = [int(node["Resources"].get("CPU", 0)) for node in nodes if node["Alive"]]
            if problems := check_given(cluster.least, cpus):
                raise InputError(problems)
        yield warning
    finally:
        ray.shutdown()
