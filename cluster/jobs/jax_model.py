"""A model of JAX: pure functions of a tree of parameters."""

import jax
from jax import numpy as jnp

draw = jax.nn.initializers.he_normal()


class Net:
    def __init__(self, features, hidden, classes):
        self.features, self.hidden, self.classes = features, hidden, classes

    def init(self, key):
        first, second = jax.random.split(key)
        return {
            "hidden": {"w": draw(first, (self.features, self.hidden)), "b": jnp.zeros(self.hidden)},
            "last": {"w": draw(second, (self.hidden, self.classes)), "b": jnp.zeros(self.classes)},
        }

    def predict(self, params, x):
        hidden, last = params["hidden"], params["last"]
        x = jax.nn.relu(x.reshape(len(x), -1) @ hidden["w"] + hidden["b"])
        return x @ last["w"] + last["b"]

    def loss(self, params, batch):
        scores = jax.nn.log_softmax(self.predict(params, batch.x))
        return -jnp.take_along_axis(scores, batch.y[:, None], axis=1).mean()


def build(data_spec, hidden=128):
    rows, columns = data_spec.input_shape
    return Net(rows * columns, hidden, data_spec.classes)
