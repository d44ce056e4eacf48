"""A model of one's own: two layers with a skip between them. Used by my_model.toml."""

from __future__ import annotations

import math

import numpy as np

from thalweg_worker import autodiff as ad


class Skip:
    """logits = relu(x W1 + b1) W2 + x W3"""

    def __init__(self, data_spec, width):
        self.features, self.classes, self.width = math.prod(data_spec.input_shape), data_spec.classes, width

    def init(self, rng):
        def normal(inputs, outputs):
            return (rng.standard_normal((inputs, outputs)) / math.sqrt(inputs)).astype(np.float32)

        return {
            "W1": normal(self.features, self.width),
            "b1": np.zeros(self.width, np.float32),
            "W2": normal(self.width, self.classes),
            "W3": normal(self.features, self.classes),
        }

    def predict(self, params, x):
        x = x.reshape(-1, self.features)
        return ad.relu(x @ params["W1"] + params["b1"]) @ params["W2"] + x @ params["W3"]

    def loss(self, params, batch):
        return ad.softmax_cross_entropy(self.predict(params, batch.x), batch.y)


def build(data_spec, width=64):
    return Skip(data_spec, width)
