"""The engine of JAX: a user's pure functions, compiled once for each size of a microbatch.

Rules:
  - The parameters of a step are JAX arrays on the memory that its version is in, made once and without a copy, where it
    is aligned as XLA wants it. JAX takes an array for constant; it is that as long as a call lasts, and each call reads
    it anew.
  - What is random follows from (seed, step, microbatch), so it is the same whoever computes it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

from thalweg_worker.batch import Batch
from thalweg_worker.engines.foreign import random_bytes
from thalweg_worker.engines.jax_model import JaxModel
from thalweg_worker.engines.memory import keep_freed_memory, unguarded
from thalweg_worker.engines.protocol import Arrays, BeforeRead, Evaluation, OnReady


class JaxEngine:
    """Differentiates a JaxModel on the CPU, with one thread."""

    deterministic = True

    def __init__(self, model: JaxModel) -> None:
        keep_freed_memory()
        self._model = model
        self._compiled = jax.jit(self._loss_and_gradients)
        self._loss = jax.jit(lambda leaves, x, y: model.loss(model.tree(leaves), Batch(x, y)))
        predict = model.predict if model.spec.task == "classification" else None
        self._predict = None if predict is None else jax.jit(lambda leaves, x: predict(model.tree(leaves), x))

    def _loss_and_gradients(self, leaves: list[Any], x: Any, y: Any, key: Any, weight: Any) -> tuple[Any, list[Any]]:
        model = self._model
        batch = Batch(x, y, jax.random.wrap_key_data(key))
        loss, gradients = jax.value_and_grad(lambda leaves: model.loss(model.tree(leaves), batch))(leaves)
        return loss, [gradient * weight for gradient in gradients]

    def gradient(
        self,
        parameters: Arrays,
        batch: Batch,
        *,
        weight: float,
        out: Arrays,
        before_read: BeforeRead | None = None,
        on_ready: OnReady | None = None,
    ) -> Callable[[], float]:
        names = self._model.names
        bound, scale = self._leaves(parameters), np.float32(weight)
        copied = [i for i, name in enumerate(names) if not _same_memory(bound[i], parameters[name])]

        def gradient() -> float:
            if before_read is not None:
                for name in names:
                    before_read(name, parameters[name].size)
            leaves = list(bound)
            for i in copied:
                leaves[i] = jax.numpy.array(parameters[names[i]])
            key = np.frombuffer(random_bytes(batch), dtype="<u4")
            loss, gradients = self._compiled(leaves, batch.x, batch.y, key, scale)
            for name, each in zip(names, gradients, strict=True):
                np.copyto(out[name], each)
                if on_ready is not None:
                    on_ready(name, 0)
            return float(loss)

        return gradient

    def _leaves(self, parameters: Arrays) -> list[Any]:
        return [jax.dlpack.from_dlpack(unguarded(parameters[name])) for name in self._model.names]

    def evaluate(self, parameters: Arrays, batch: Batch) -> Evaluation:
        leaves = self._leaves(parameters)
        loss = float(self._loss(leaves, batch.x, batch.y))
        correct = -1
        if self._predict is not None:
            scores = np.asarray(self._predict(leaves, batch.x))
            correct = int(np.count_nonzero(scores.argmax(axis=-1) == batch.y))
        return Evaluation(loss * batch.y.size, correct)


def _same_memory(leaf: Any, array: NDArray[np.float32]) -> bool:
    return bool(leaf.unsafe_buffer_pointer() == array.ctypes.data)
