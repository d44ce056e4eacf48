"""784-H-H-10 with ReLU, as the rivals of `compare` train it."""

from torch import nn


def build(data_spec, hidden):
    [features] = data_spec.input_shape
    return nn.Sequential(
        nn.Linear(features, hidden),
        nn.ReLU(),
        nn.Linear(hidden, hidden),
        nn.ReLU(),
        nn.Linear(hidden, data_spec.classes),
    )
