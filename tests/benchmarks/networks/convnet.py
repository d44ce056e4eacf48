"""Two convolutions of 3 x 3 with 16 and 32 channels, each with ReLU and a maximum over 2 x 2, on images of 28 x 28."""

from torch import nn


def build(data_spec):
    return nn.Sequential(
        nn.Unflatten(1, (1, 28, 28)),
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(32 * 7 * 7, data_spec.classes),
    )
