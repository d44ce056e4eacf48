"""The rival that trains any `nn.Module`: one process alone, or with `--workers n` under DistributedDataParallel.

It builds the very module that Thalweg trains, from the same file, draws its rows at random, and prints one JSON line.

    python -m tests.benchmarks.rivals.nn_module --network networks/mlp.py --options '{"hidden": 128}' --data DIR \
        --batch 64 --workers 2 --warmup-steps 10 --steps 100
"""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from tests.benchmarks.rivals.common import count, timing
from tests.benchmarks.rivals.ddp import meet
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from thalweg_worker.batch import DataSpec
from thalweg_worker.models import ModelSource


@dataclass(frozen=True, kw_only=True)
class ModuleTask:
    """One run on a module of a user's file.

    network, options: the file, and the options of its `build`
    data:             folder with x.npy, (rows, ...), and y.npy, (rows, ...) int64 classes
    device:           "cpu", or of one worker "cuda"
    the rest:         as of `common.Task`
    """

    network: Path
    options: dict[str, Any]
    data: Path
    batch: int
    workers: int
    warmup_steps: int
    steps: int
    learning_rate: float
    momentum: float
    device: str = "cpu"


class Clock:
    """Reads the time after each step: that of the host; or of a GPU, which nobody waits for meanwhile."""

    def __init__(self, device: str) -> None:
        self._gpu = device == "cuda"
        self._read: list[Any] = []

    def read(self) -> None:
        if self._gpu:
            self._read.append(torch.cuda.Event(enable_timing=True))
            self._read[-1].record()
        else:
            self._read.append(perf_counter())

    def stamps_s(self) -> list[float]:
        """All readings, in seconds."""
        if self._gpu:
            torch.cuda.synchronize()
            return [self._read[0].elapsed_time(event) / 1000 for event in self._read]
        return self._read


class Batches:
    """Rows at random, on the device: from two page-locked buffers in turn, where that is a GPU."""

    def __init__(self, task: ModuleTask, rank: int, *arrays: np.ndarray) -> None:
        self._all = [torch.from_numpy(array) for array in arrays]
        self._rng = np.random.default_rng(rank)
        self._task = task
        gpu = task.device == "cuda"
        self._copied = [torch.cuda.Event() for _ in range(2)] if gpu else []
        self._buffers = [
            [torch.empty((task.batch, *each.shape[1:]), dtype=each.dtype, pin_memory=gpu) for each in self._all]
            for _ in range(2 if gpu else 1)
        ]

    def draw(self, step: int) -> list[torch.Tensor]:
        rows = torch.from_numpy(self._rng.integers(len(self._all[0]), size=self._task.batch))
        turn = step % len(self._buffers)
        if self._copied:
            self._copied[turn].synchronize()
        for each, buffer in zip(self._all, self._buffers[turn], strict=True):
            torch.index_select(each, 0, rows, out=buffer)
        if not self._copied:
            return self._buffers[turn]
        batch = [buffer.to("cuda", non_blocking=True) for buffer in self._buffers[turn]]
        self._copied[turn].record()
        return batch


def build(task: ModuleTask, x: np.ndarray, y: np.ndarray) -> tuple[nn.Module, Any]:
    """The module and its loss."""
    spec = DataSpec(
        input_shape=x.shape[1:],
        input_dtype="float32" if x.dtype == np.float32 else "int64",
        task="classification",
        classes=int(y.max()) + 1,
        target_shape=y.shape[1:],
    )
    torch.manual_seed(0)
    built: Any = ModelSource.read(f"{task.network}:build", task.options, folder=Path()).build(spec)
    return built if isinstance(built, tuple) else (built, nn.functional.cross_entropy)


def work(rank: int, task: ModuleTask) -> None:
    """Train as one worker; rank 0 reports."""
    torch.set_num_threads(1)
    if task.workers > 1:
        dist.init_process_group("gloo", rank=rank, world_size=task.workers)
    x, y = (np.load(task.data / name) for name in ("x.npy", "y.npy"))
    module, loss = build(task, x, y)
    module.to(task.device)
    if task.workers > 1:
        module = DistributedDataParallel(module, gradient_as_bucket_view=True)
    optimizer = torch.optim.SGD(module.parameters(), lr=task.learning_rate, momentum=task.momentum)
    batches, clock = Batches(task, rank, x, y), Clock(task.device)
    for step in range(task.warmup_steps + task.steps):
        if step == task.warmup_steps:
            if task.workers > 1:
                dist.barrier()
            clock.read()
        batch_x, batch_y = batches.draw(step)
        optimizer.zero_grad()
        loss(module(batch_x), batch_y).backward()
        optimizer.step()
        if step >= task.warmup_steps:
            clock.read()
    if rank == 0:
        print(json.dumps(timing(clock.stamps_s(), task.batch * task.workers)), flush=True)
    if task.workers > 1:
        dist.barrier()  # leave together: gloo aborts a process whose peer went while its threads still served it
        dist.destroy_process_group()


def parse_task() -> ModuleTask:
    """The task on the command line; the options are the fields of `ModuleTask`."""
    parser = argparse.ArgumentParser(description="Train a module alone or under DDP, and print its timing as JSON.")
    parser.add_argument("--network", type=Path, required=True, metavar="FILE.py")
    parser.add_argument("--options", type=json.loads, default={}, metavar="JSON")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR")
    for name in ("batch", "workers", "warmup-steps", "steps"):
        parser.add_argument(f"--{name}", type=count, required=True, metavar="N")
    parser.add_argument("--learning-rate", type=float, default=0.01)
    parser.add_argument("--momentum", type=float, default=0.9)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    return ModuleTask(**vars(parser.parse_args()))


if __name__ == "__main__":
    task = parse_task()
    if task.workers == 1:
        work(0, task)
    else:
        meet(os.environ)
        torch.multiprocessing.spawn(work, args=(task,), nprocs=task.workers)
