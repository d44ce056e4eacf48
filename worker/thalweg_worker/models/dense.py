"""A fully connected layer: its parameters "NAME.weight" (inputs, outputs) and "NAME.bias" (outputs,)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from thalweg_worker.models.initialisation import glorot_uniform, he_normal
from thalweg_worker.models.protocol import Parameters


def init_layer(rng: np.random.Generator, name: str, shape: tuple[int, ...], *, activation: str | None) -> Parameters:
    """He's weights before a ReLU, else Glorot's; a zero bias.

    shape:      of the weight, the last axis the outputs; also that of a convolution's kernel
    activation: what follows the layer; None where it is the last
    """
    draw = he_normal if activation == "relu" else glorot_uniform
    return {f"{name}.weight": draw(rng, shape), f"{name}.bias": np.zeros(shape[-1:], dtype=np.float32)}


def dense(params: Mapping[str, Any], name: str, x: Any) -> Any:
    """x (n, inputs) -> x W + b (n, outputs)."""
    return x @ params[f"{name}.weight"] + params[f"{name}.bias"]


def flat(x: Any) -> Any:
    """x (n, ...) -> (n, elements of a sample); nothing is recorded where it is flat already."""
    return x if len(x.shape) == 2 else x.reshape((x.shape[0], -1))
