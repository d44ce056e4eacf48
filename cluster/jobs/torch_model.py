"""A model of PyTorch: an nn.Module, as one has it already."""

from torch import nn


def build(data_spec, hidden=128):
    rows, columns = data_spec.input_shape
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(rows * columns, hidden),
        nn.ReLU(),
        nn.Dropout(0.1),
        nn.Linear(hidden, data_spec.classes),
    )
