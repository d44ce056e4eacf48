"""The engine of JAX: a user's pure functions, compiled once for each size of a microbatch.

Rules:
  - On the CPU the parameters of a step are JAX arrays on the memory that its version is in, made once and without a
    copy, where it is aligned as XLA wants it. JAX takes an array for constant; it is that as long as a call lasts, and
    each call reads it anew. To and from a GPU they are copied (staging.py).
  - What is random follows from (seed, step, microbatch), so it is the same whoever computes it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

from thalweg_worker.batch import Batch
from thalweg_worker.engines.foreign import random_bytes
from thalweg_worker.engines.jax_model import JaxModel
from thalweg_worker.engines.memory import keep_freed_memory, unguarded
from thalweg_worker.engines.protocol import Arrays, BeforeRead, Evaluation, OnReady
from thalweg_worker.engines.staging import Bring, HostMemory, Memory


class JaxEngine:
    """Differentiates a JaxModel; on the CPU with one thread.

    memory: where parameters and batches are; None: in memory of the host, in place
    """

    deterministic = True

    def __init__(self, model: JaxModel, memory: Memory | None = None) -> None:
        keep_freed_memory()
        self._memory = memory or _InPlace(lambda array: array, lambda array: partial(np.copyto, array))
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
        names, scale = self._model.names, np.float32(weight)
        bring, samples = self._memory.reader(parameters), self._memory.batch(batch)
        gradients = self._memory.gradients(out, on_ready)

        def gradient() -> float:
            values = bring(batch.key, before_read)
            x, y = samples()
            key = np.frombuffer(random_bytes(batch), dtype="<u4")
            gradients.begin()
            loss, computed = self._compiled([values[name] for name in names], x, y, key, scale)
            for name, each in zip(names, computed, strict=True):
                gradients.send(name, each)
            gradients.finish()
            return float(loss)

        return gradient

    def evaluate(self, parameters: Arrays, batch: Batch) -> Evaluation:
        values = self._memory.reader(parameters)(None, None)
        leaves, (x, y) = [values[name] for name in self._model.names], self._memory.batch(batch)()
        loss = float(self._loss(leaves, x, y))
        correct = -1
        if self._predict is not None:
            scores = np.asarray(self._predict(leaves, x))
            correct = int(np.count_nonzero(scores.argmax(axis=-1) == batch.y))
        return Evaluation(loss * batch.y.size, correct)


class _InPlace(HostMemory):
    """Arrays that XLA could not take where they are are copied each time."""

    def reader(self, parameters: Arrays) -> Bring:
        ask = super().reader(parameters)
        bound = {name: jax.dlpack.from_dlpack(unguarded(array)) for name, array in parameters.items()}
        copied = [name for name, leaf in bound.items() if not _same_memory(leaf, parameters[name])]

        def bring(key: NDArray[np.uint64] | None, before_read: BeforeRead | None) -> dict[str, Any]:
            ask(key, before_read)
            return bound | {name: jax.numpy.array(parameters[name]) for name in copied}

        return bring


def _same_memory(leaf: Any, array: NDArray[np.float32]) -> bool:
    return bool(leaf.unsafe_buffer_pointer() == array.ctypes.data)
