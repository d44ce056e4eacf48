"""What an engine computes, on the CPU or on a GPU, in a process of its own: a framework asks once what there is.

    python -m tests.gpu.engine_run torch gpu OUT.npz

For batches of several sizes: the loss, the gradient of each parameter, the evaluation. Each is computed twice, and has
to have the same bits; and the hooks are called as they have to be.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
from tests.worker.engines.laws import CLASSES, batch, hooks_are_called, source

from thalweg_worker.engines import averaged_for, make_engine, model_for
from thalweg_worker.engines.gpu import prepare
from thalweg_worker.models import ModelSource, initial_parameters

TORCH = """
import torch
from torch import nn

def build(spec):
    # In float32 throughout, to be compared with a CPU: cuDNN would convolve in TF32.
    torch.backends.cudnn.allow_tf32 = False
    return nn.Sequential(
        nn.Linear(5, 32), nn.Unflatten(1, (2, 4, 4)), nn.Conv2d(2, 8, 3, padding=1), nn.BatchNorm2d(8), nn.SiLU(),
        nn.Flatten(), nn.Linear(128, 3),
    )
"""
JAX = """
import jax
from jax import numpy as jnp

class Net:
    def init(self, key):
        first, second = jax.random.split(key)
        return {"a": jax.random.normal(first, (5, 64)), "b": jax.random.normal(second, (64, 3)) / 8, "c": jnp.zeros(3)}

    def predict(self, params, x):
        return jnp.tanh(x @ params["a"]) @ params["b"] + params["c"]

    def loss(self, params, batch):
        scores = jax.nn.log_softmax(self.predict(params, batch.x))
        return -jnp.take_along_axis(scores, batch.y[:, None], axis=1).mean()

def build(spec):
    return Net()
"""
MODELS = {
    "torch": lambda: source("", TORCH),
    "jax": lambda: source("", JAX),
    "cupy": lambda: ModelSource(use="mlp", options={"hidden": [64, 64]}),
}


def computed(engine_name: str, gpu: bool) -> Iterator[tuple[str, Any]]:
    """Each figure with its name."""
    prepare(1.0 if gpu else 0.0)
    # On its GPUs JAX, too, multiplies in less than float32, unless told.
    os.environ.setdefault("JAX_DEFAULT_MATMUL_PRECISION", "highest")
    # Without a GPU what CuPy would compute NumPy does, and CuPy need not be there.
    model = model_for("numpy" if engine_name == "cupy" else engine_name, MODELS[engine_name](), CLASSES, 0)
    parameters = initial_parameters(model, 0) | averaged_for(engine_name, model, batch(6))
    engine = make_engine(engine_name, model, classify=True, gpu=gpu, stays=True)
    for step, samples in enumerate((6, 64, 6)):
        for array in parameters.values():
            array *= np.float32(0.9)
        for microbatch in (0, 1):
            given = batch(samples, key=(0, step, microbatch))
            out = [{name: np.full_like(array, np.nan) for name, array in parameters.items()} for _ in range(2)]
            losses = [engine.gradient(parameters, given, weight=0.25, out=each)() for each in out]
            assert losses[0] == losses[1], losses
            for name in parameters:
                assert np.array_equal(out[0][name], out[1][name]), f"{name} has other bits the second time"
                yield f"{step}.{microbatch}.{name}", out[0][name]
            yield f"{step}.{microbatch}.loss", losses[0]
        found = engine.evaluate(parameters, batch(50, key=None))
        yield f"{step}.loss_sum", found.loss_sum
        yield f"{step}.correct", found.correct
    room = {name: np.full_like(array, np.nan) for name, array in parameters.items()}
    hooks_are_called((engine, parameters, room))


if __name__ == "__main__":
    np.savez(sys.argv[3], **dict(computed(sys.argv[1], sys.argv[2] == "gpu")))
