"""What PyTorch alone makes of a job's own batches: in one loop, and with DistributedDataParallel.

python -m tests.scenarios.plain_torch JOB.toml NET.py RANKS WEIGHTS.npz     # DDP, a process for each microbatch
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from tests.scenarios.conftest import free_port
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel

from thalweg_proto.job import Job, load_job
from thalweg_worker.batches import BatchSource
from thalweg_worker.datasets import load_dataset
from thalweg_worker.sampler import Sampler

Arrays = dict[str, np.ndarray]


class Task:
    """A job as one has it in PyTorch.

    net:       as the function `build` of a file with this text makes it
    optimiser: SGD with the job's rate and momentum
    """

    def __init__(self, job: Job, text: str, microbatches: int) -> None:
        data = load_dataset(job.data, job.seed).data.train
        assert isinstance(job.train.batch_size, int)
        self.sampler = Sampler(job.seed, samples=len(data), batch_size=job.train.batch_size, microbatches=microbatches)
        self._batches = BatchSource(data, self.sampler, range(microbatches))
        self.steps = job.train.steps
        torch.manual_seed(job.seed)
        torch.set_num_threads(1)
        space: dict[str, Any] = {}
        exec(text, space)
        self.net = space["build"](data.spec)
        section = job.optimizer
        self.optimiser = torch.optim.SGD(self.net.parameters(), lr=section.learning_rate, momentum=section.momentum)

    def loss(self, net: Any, step: int, microbatch: int) -> Any:
        """The mean over a microbatch."""
        self._batches.draw(step, microbatch)
        batch = self._batches.batch(microbatch)
        return cross_entropy(net(torch.from_numpy(batch.x)), torch.from_numpy(batch.y))

    @property
    def weights(self) -> Arrays:
        """Parameters and buffers, by name."""
        return {name: tensor.numpy().copy() for name, tensor in self.net.state_dict().items()}


def alone(job: Job, text: str, microbatches: int) -> Arrays:
    """One process. Each microbatch of a step starts from the same buffers, and what they make of them is averaged."""
    task = Task(job, text, microbatches)
    shares = [task.sampler.size(m) / task.sampler.batch_size for m in range(microbatches)]
    buffers = {name: buffer for name, buffer in task.net.named_buffers() if buffer.dtype == torch.float32}
    for step in range(task.steps):
        task.optimiser.zero_grad()
        old = {name: buffer.clone() for name, buffer in buffers.items()}
        mean = {name: torch.zeros_like(buffer) for name, buffer in buffers.items()}
        for m, share in enumerate(shares):
            for name, buffer in buffers.items():
                buffer.copy_(old[name])
            (task.loss(task.net, step, m) * share).backward()
            for name, buffer in buffers.items():
                mean[name] += share * buffer
        for name, buffer in buffers.items():
            buffer.copy_(mean[name])
        task.optimiser.step()
    return task.weights


def of_rank(rank: int, job: Path, net: Path, ranks: int, out: Path) -> None:
    """One process of DDP, whose batch is that microbatch; rank 0 writes the weights."""
    dist.init_process_group("gloo", rank=rank, world_size=ranks)
    task = Task(load_job(job).job, net.read_text(), ranks)
    parallel = DistributedDataParallel(task.net, gradient_as_bucket_view=True)
    for step in range(task.steps):
        task.optimiser.zero_grad()
        task.loss(parallel, step, rank).backward()
        task.optimiser.step()
    if rank == 0:
        np.savez(out, **task.weights)
    dist.barrier()  # leave together: gloo aborts a process whose peer went while its threads still served it
    dist.destroy_process_group()


if __name__ == "__main__":
    job, net, ranks, out = sys.argv[1:]
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(free_port()), GLOO_SOCKET_IFNAME="lo")
    torch.multiprocessing.spawn(of_rank, args=(Path(job), Path(net), int(ranks), Path(out)), nprocs=int(ranks))
