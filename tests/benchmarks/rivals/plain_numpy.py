"""The rival without a framework: one process, one thread, every formula written out with NumPy in place.

All buffers are taken once. A worker's share of an ideal cluster is this loop with nothing added, so the cluster's ideal
is `workers` times its samples/s. With `--workers n` it takes the rows of all n workers as one batch of its own.
"""

from __future__ import annotations

from time import perf_counter

import numpy as np
from numpy.typing import NDArray
from tests.benchmarks.rivals.common import (
    CLASSES,
    FEATURES,
    Array,
    Task,
    finish,
    initial_weights,
    load_data,
    parse_task,
    row_source,
)


class Network:
    """784-H-H-10 with ReLU, its gradient and its momentum SGD.

    forward   h1 = relu(x W1 + b1), h2 = relu(h1 W2 + b2), z = h2 W3 + b3, loss = mean(logsumexp(z) - z[y])
    backward  d3 = (softmax(z) - onehot(y)) / n, d2 = (d3 W3^T) * [h2 > 0], d1 = (d2 W2^T) * [h1 > 0]
    update    v = momentum v + g, w = w - learning_rate v, v = 0 at first (torch.optim.SGD, dampening 0)
    """

    def __init__(self, task: Task, samples: int) -> None:
        hidden = task.hidden
        self.weights = initial_weights(hidden, task.seed)
        self.gradients = [np.empty_like(w) for w in self.weights]
        self.velocities = [np.zeros_like(w) for w in self.weights]
        self.learning_rate = np.float32(task.learning_rate)
        self.momentum = np.float32(task.momentum)
        self.h1 = np.empty((samples, hidden), np.float32)
        self.h2 = np.empty((samples, hidden), np.float32)
        self.d1 = np.empty((samples, hidden), np.float32)
        self.d2 = np.empty((samples, hidden), np.float32)
        self.z = np.empty((samples, CLASSES), np.float32)
        self.active = np.empty((samples, hidden), np.bool_)
        self.column = np.empty((samples, 1), np.float32)
        self.every = np.arange(samples)
        self.share = np.float32(1 / samples)

    def forward_backward(self, x: Array, y: NDArray[np.int64]) -> float:
        """Write the gradients at x (n, 784), y (n,) into `self.gradients`; return the loss."""
        w1, b1, w2, b2, w3, b3 = self.weights
        gw1, gb1, gw2, gb2, gw3, gb3 = self.gradients
        h1, h2, d1, d2, z, active, column = self.h1, self.h2, self.d1, self.d2, self.z, self.active, self.column

        np.matmul(x, w1, out=h1)
        h1 += b1
        np.maximum(h1, 0, out=h1)
        np.matmul(h1, w2, out=h2)
        h2 += b2
        np.maximum(h2, 0, out=h2)
        np.matmul(h2, w3, out=z)
        z += b3

        np.max(z, axis=1, keepdims=True, out=column)
        z -= column
        of_label = z[self.every, y]
        np.exp(z, out=z)
        np.sum(z, axis=1, keepdims=True, out=column)
        z /= column
        np.log(column, out=column)
        loss = float(np.mean(column[:, 0] - of_label))

        z[self.every, y] -= 1
        z *= self.share
        np.matmul(h2.T, z, out=gw3)
        np.sum(z, axis=0, out=gb3)
        np.matmul(z, w3.T, out=d2)
        np.greater(h2, 0, out=active)
        d2 *= active
        np.matmul(h1.T, d2, out=gw2)
        np.sum(d2, axis=0, out=gb2)
        np.matmul(d2, w2.T, out=d1)
        np.greater(h1, 0, out=active)
        d1 *= active
        np.matmul(x.T, d1, out=gw1)
        np.sum(d1, axis=0, out=gb1)
        return loss

    def update(self) -> None:
        """Apply `self.gradients`, which serve as scratch space."""
        for w, g, v in zip(self.weights, self.gradients, self.velocities, strict=True):
            v *= self.momentum
            v += g
            np.multiply(v, self.learning_rate, out=g)
            w -= g


def run(task: Task) -> None:
    x, y = load_data(task)
    sources = [row_source(task, rank, len(x)) for rank in range(task.workers)]
    samples = task.samples_per_step
    network = Network(task, samples)
    batch_x, batch_y = np.empty((samples, FEATURES), np.float32), np.empty(samples, np.int64)
    stamps_s = []
    for step in range(task.warmup_steps + task.steps):
        if step == task.warmup_steps:
            stamps_s.append(perf_counter())
        rows = sources[0](step) if len(sources) == 1 else np.concatenate([source(step) for source in sources])
        # mode="clip": with the default, "raise", np.take fills a copy of `out` first.
        np.take(x, rows, axis=0, out=batch_x, mode="clip")
        np.take(y, rows, out=batch_y, mode="clip")
        network.forward_backward(batch_x, batch_y)
        network.update()
        if step >= task.warmup_steps:
            stamps_s.append(perf_counter())
    finish(task, stamps_s, network.weights)


if __name__ == "__main__":
    run(parse_task())
