"""The rival PyTorch DistributedDataParallel: one process a worker, gradients averaged by gloo over loopback.

torch.nn.parallel.DistributedDataParallel as its documentation advises: gradients are views of the buckets, which
saves a copy of each; the sum of a bucket overlaps the backward pass of the layers below it.
"""

from __future__ import annotations

import os
import socket
from collections.abc import MutableMapping
from time import perf_counter

import torch
import torch.distributed as dist
from tests.benchmarks.rivals.common import Task, finish, parse_task
from tests.benchmarks.rivals.torch_network import batches, network, weights_of
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def work(rank: int, task: Task) -> None:
    """Train as one worker; rank 0 reports. The all-reduce keeps the ranks within a step of each other."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=task.workers)
    take = batches(task, rank)
    model = DistributedDataParallel(network(task), gradient_as_bucket_view=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=task.learning_rate, momentum=task.momentum)
    stamps_s = []
    for step in range(task.warmup_steps + task.steps):
        if step == task.warmup_steps:
            dist.barrier()
            stamps_s.append(perf_counter())
        x, y = take(step)
        optimizer.zero_grad()
        cross_entropy(model(x), y).backward()
        optimizer.step()
        if step >= task.warmup_steps:
            stamps_s.append(perf_counter())
    if rank == 0:
        finish(task, stamps_s, weights_of(model))
    dist.barrier()  # leave together: gloo aborts a process whose peer went while its threads still served it
    dist.destroy_process_group()


def meet(environment: MutableMapping[str, str]) -> None:
    """Says where the ranks of this machine find each other."""
    environment.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(free_port()), GLOO_SOCKET_IFNAME="lo")


def run(task: Task) -> None:
    meet(os.environ)
    torch.multiprocessing.spawn(work, args=(task,), nprocs=task.workers)


if __name__ == "__main__":
    run(parse_task())
