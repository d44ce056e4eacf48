"""The rival parameter server in the shape of Ray's documented example, synchronous.

https://docs.ray.io/en/latest/ray-core/examples/plot_parameter_server.html: worker actors compute gradients with torch
and return them as NumPy arrays, Ray's object store carries them to the server actor, which applies a torch optimizer
and returns the weights as tensors, which the object store carries to the workers. As there, the driver only passes
references on, and waits every 10 steps. Unlike there, the server takes the mean of the gradients instead of the sum,
without stacking them first, and its optimizer has momentum.

`ray_numpy_weights.py` is the same with the weights as NumPy arrays, which Ray hands over without a copy.
"""

from __future__ import annotations

import logging
from functools import reduce
from time import perf_counter
from typing import Any

import numpy as np
import ray
import torch
from tests.benchmarks.rivals.common import Array, Task, finish, parse_task
from tests.benchmarks.rivals.torch_network import batches, network, weights_of
from torch import Tensor
from torch.nn.functional import cross_entropy

STEPS_AHEAD_MAX = 10  # the example evaluates every 10 steps, and has to wait for them


@ray.remote
class ParameterServer:
    def __init__(self, task: Task, numpy_weights: bool) -> None:
        torch.set_num_threads(1)
        self.model = network(task)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=task.learning_rate, momentum=task.momentum)
        self.numpy_weights = numpy_weights
        self.stamps_s: list[float] = []

    def apply_gradients(self, *gradients: list[Array]) -> dict[str, Tensor] | dict[str, Array]:
        """One update with the mean of the workers' gradients; the new weights."""
        for parameter, parts in zip(self.model.parameters(), zip(*gradients, strict=True), strict=True):
            mean = reduce(np.add, parts)
            mean = np.divide(mean, np.float32(len(parts)), out=mean if len(parts) > 1 else None)
            parameter.grad = torch.from_numpy(mean)
        self.optimizer.step()
        self.stamps_s.append(perf_counter())
        return self.get_weights()

    def get_weights(self) -> dict[str, Tensor] | dict[str, Array]:
        weights = self.model.state_dict()
        return {name: w.numpy() for name, w in weights.items()} if self.numpy_weights else dict(weights)

    def result(self) -> tuple[list[float], list[Array]]:
        """The clock after each step, in seconds, and the final weights in the form of `initial_weights`."""
        return self.stamps_s, weights_of(self.model)


@ray.remote
class DataWorker:
    def __init__(self, task: Task, rank: int) -> None:
        torch.set_num_threads(1)
        self.model = network(task)
        self.take = batches(task, rank)

    def compute_gradients(self, step: int, weights: dict[str, Tensor] | dict[str, Array]) -> list[Array]:
        self.model.load_state_dict({name: torch.as_tensor(w) for name, w in weights.items()})
        self.model.zero_grad()
        x, y = self.take(step)
        cross_entropy(self.model(x), y).backward()
        return [parameter.grad.numpy() for parameter in self.model.parameters() if parameter.grad is not None]


def run(task: Task, *, numpy_weights: bool) -> None:
    ray.init(
        address="local",
        num_cpus=task.workers + 1,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )
    server: Any = ParameterServer.remote(task, numpy_weights)
    workers: list[Any] = [DataWorker.remote(task, rank) for rank in range(task.workers)]
    weights = server.get_weights.remote()
    for step in range(task.warmup_steps + task.steps):
        gradients = [worker.compute_gradients.remote(step, weights) for worker in workers]
        weights = server.apply_gradients.remote(*gradients)
        if step % STEPS_AHEAD_MAX == STEPS_AHEAD_MAX - 1:
            ray.wait([weights], fetch_local=False)
    stamps_s, final = ray.get(server.result.remote())
    # The clock starts when the last warm-up step is done; the server's stamp of it is number warmup_steps - 1.
    finish(task, stamps_s[task.warmup_steps - 1 :], final)
    ray.shutdown()


if __name__ == "__main__":
    run(parse_task(), numpy_weights=False)
