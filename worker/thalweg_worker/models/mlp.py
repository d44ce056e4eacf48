"""`use = "mlp"`: a multilayer perceptron.

    h_0 = x;   h_i = dropout(f(h_{i-1} W_i + b_i));   outputs = h_last W + b

Images are flattened. Before a ReLU the weights start as He's, else as Glorot's; biases start at zero.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from thalweg_proto.errors import InputError
from thalweg_proto.job.kinds import Choice, Number
from thalweg_proto.job.options import Section, option
from thalweg_worker import autodiff as ad
from thalweg_worker.batch import Batch, DataSpec
from thalweg_worker.models import heads
from thalweg_worker.models.dense import dense, flat, init_layer
from thalweg_worker.models.options import Wholes, read_options
from thalweg_worker.models.protocol import Parameters

ACTIVATIONS = {"relu": ad.relu, "tanh": ad.tanh, "sigmoid": ad.sigmoid}


@dataclass(frozen=True, kw_only=True)
class MlpOptions(Section):
    """The keys of [model] beside `use` and `init`."""

    hidden: tuple[int, ...] = option(Wholes(example="[128, 128]"), "units of each hidden layer", default=(128, 128))
    activation: Literal["relu", "tanh", "sigmoid"] = option(
        Choice(tuple(ACTIVATIONS)), "what follows each hidden layer", default="relu"
    )
    dropout: float = option(Number(minimum=0, below=1), "share of hidden units left out in training", default=0.0)


@dataclass(frozen=True)
class Mlp:
    """Parameters: "hidden1.weight" (inputs, units), "hidden1.bias" (units,), ..., "output.weight" and
    "output.bias".
    """

    data_spec: DataSpec
    options: MlpOptions

    def init(self, rng: np.random.Generator) -> Parameters:
        """Layer by layer, from the first to the last."""
        inputs, params = math.prod(self.data_spec.input_shape), Parameters()
        for name, units in zip(self._names(), self.options.hidden, strict=True):
            params |= init_layer(rng, name, (inputs, units), activation=self.options.activation)
            inputs = units
        return params | init_layer(rng, "output", (inputs, heads.output_count(self.data_spec)), activation=None)

    def loss(self, params: Mapping[str, Any], batch: Batch) -> Any:
        """See `heads.loss`; dropout where the batch has a key."""
        return heads.loss(self._outputs(params, batch.x, batch.key), batch.y, self.data_spec)

    def predict(self, params: Mapping[str, Any], x: Any) -> Any:
        """Logits (n, *target_shape, classes), or predictions (n, *target_shape)."""
        return heads.prediction(self._outputs(params, x, None), self.data_spec)

    def _outputs(self, params: Mapping[str, Any], x: Any, key: Any) -> Any:
        h = flat(x)
        for name in self._names():
            h = ACTIVATIONS[self.options.activation](dense(params, name, h))
            if self.options.dropout:
                h = ad.dropout(h, self.options.dropout, key)
        return dense(params, "output", h)

    def _names(self) -> list[str]:
        return [f"hidden{i + 1}" for i in range(len(self.options.hidden))]


def build(data_spec: DataSpec, **options: Any) -> Mlp:
    """Raises InputError with every wrong option."""
    read, problems, _ = read_options(MlpOptions, options)
    if problems := problems + heads.unfit_samples(data_spec):
        raise InputError(problems)
    return Mlp(data_spec, read)
