"""The network 784-H-H-10 of the PyTorch rivals, and its batches."""

from __future__ import annotations

from collections.abc import Callable

import torch
from tests.benchmarks.rivals.common import CLASSES, FEATURES, Array, Task, initial_weights, load_data, row_source
from torch import Tensor, nn


def network(task: Task) -> nn.Sequential:
    """784-H-H-10 with ReLU and the initial weights of all rivals."""
    hidden = task.hidden
    model = nn.Sequential(
        nn.Linear(FEATURES, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, CLASSES)
    )
    with torch.no_grad():
        for parameter, w in zip(model.parameters(), initial_weights(hidden, task.seed), strict=True):
            parameter.copy_(torch.from_numpy(w.T))  # torch's Linear keeps W as (fan_out, fan_in)
    return model


def weights_of(model: nn.Module) -> list[Array]:
    """The weights in the form of `initial_weights`, copied."""
    return [parameter.detach().numpy().T.copy() for parameter in model.parameters()]


def batches(task: Task, rank: int) -> Callable[[int], tuple[Tensor, Tensor]]:
    """step -> x (batch, 784) float32 and y (batch,) int64 of one worker; the next call overwrites them."""
    x, y = (torch.from_numpy(array) for array in load_data(task))
    source = row_source(task, rank, len(x))
    batch_x, batch_y = torch.empty(task.batch, FEATURES), torch.empty(task.batch, dtype=torch.int64)

    def take(step: int) -> tuple[Tensor, Tensor]:
        rows = torch.from_numpy(source(step))
        torch.index_select(x, 0, rows, out=batch_x)
        torch.index_select(y, 0, rows, out=batch_y)
        return batch_x, batch_y

    return take
