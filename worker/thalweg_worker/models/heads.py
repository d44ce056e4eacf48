"""What all built-in models end in: one output for each class or target, and the loss on it."""

from __future__ import annotations

import math
from typing import Any

from thalweg_proto.errors import Problem
from thalweg_worker import autodiff as ad
from thalweg_worker.batch import DataSpec


def output_count(data_spec: DataSpec) -> int:
    """How many outputs a sample has: the classes of each of its labels, or the elements of a target."""
    return math.prod(data_spec.target_shape) * (data_spec.classes or 1)


def prediction(outputs: Any, data_spec: DataSpec) -> Any:
    """Outputs (n, output_count) as `predict` returns them: (n, *target_shape, classes), or (n, *target_shape)."""
    shape = (*data_spec.target_shape, *([data_spec.classes] if data_spec.classes else []))
    return outputs if len(shape) == 1 else outputs.reshape((outputs.shape[0], *shape))


def loss(outputs: Any, targets: Any, data_spec: DataSpec) -> Any:
    """The mean over the labels of the softmax cross-entropy, or of the mean squared error of a target.

    outputs: (n, output_count); targets: as `Batch.y`
    """
    if data_spec.task == "classification":
        return ad.softmax_cross_entropy(prediction(outputs, data_spec), targets)
    return ad.mean_squared_error(prediction(outputs, data_spec), targets)


def unfit_samples(data_spec: DataSpec) -> list[Problem]:
    """What keeps a built-in model from reading such samples: it takes numbers, not tokens."""
    if data_spec.input_dtype == "float32":
        return []
    return [
        Problem(
            "model.use",
            "a model that reads tokens",
            "a built-in model, which reads float32 samples",
            "the data holds int64 tokens: write a model with an embedding (see the README)",
        )
    ]
