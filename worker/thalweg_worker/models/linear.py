"""`use = "linear"`: softmax regression, or least squares.

    outputs = x W + b,   W (features, outputs) and b (outputs,), both zero at the start

The loss is convex, so the start does not matter: with zeros the first loss is log(classes), or the mean
square of the targets.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from thalweg_proto.errors import InputError
from thalweg_proto.job.options import Section
from thalweg_worker.batch import Batch, DataSpec
from thalweg_worker.models import heads
from thalweg_worker.models.dense import dense, flat
from thalweg_worker.models.options import read_options
from thalweg_worker.models.protocol import Parameters


@dataclass(frozen=True, kw_only=True)
class LinearOptions(Section):
    """It has none."""


@dataclass(frozen=True)
class Linear:
    """Parameters: "output.weight" (features, outputs) and "output.bias" (outputs,)."""

    data_spec: DataSpec

    def init(self, rng: np.random.Generator) -> Parameters:
        """Zeros."""
        outputs = heads.output_count(self.data_spec)
        shapes = {
            "output.weight": (math.prod(self.data_spec.input_shape), outputs),
            "output.bias": (outputs,),
        }
        return {name: np.zeros(shape, dtype=np.float32) for name, shape in shapes.items()}

    def loss(self, params: Mapping[str, Any], batch: Batch) -> Any:
        """See `heads.loss`."""
        return heads.loss(dense(params, "output", flat(batch.x)), batch.y, self.data_spec)

    def predict(self, params: Mapping[str, Any], x: Any) -> Any:
        """Logits (n, *target_shape, classes), or predictions (n, *target_shape)."""
        return heads.prediction(dense(params, "output", flat(x)), self.data_spec)


def build(data_spec: DataSpec, **options: Any) -> Linear:
    """Raises InputError where an option is given."""
    _, problems, _ = read_options(LinearOptions, options)
    if problems := problems + heads.unfit_samples(data_spec):
        raise InputError(problems)
    return Linear(data_spec)
