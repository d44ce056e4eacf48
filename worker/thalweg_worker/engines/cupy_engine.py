"""The engine of CuPy: the built-in models, and users' own of the same operations, on a GPU.

What the models are made of is our own reverse-mode differentiation, which computes on CuPy's arrays as on NumPy's
(autodiff/namespace.py). Parameters and gradients go through staging.py; this file knows no CUDA, and computes on
whatever arrays the memory gives it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from thalweg_worker import autodiff
from thalweg_worker.autodiff.namespace import namespace_of
from thalweg_worker.batch import Batch
from thalweg_worker.engines.protocol import Arrays, BeforeRead, Evaluation, OnReady
from thalweg_worker.engines.staging import Memory


class CupyEngine:
    """Differentiates `model.loss` where `memory` is.

    model:    anything with `loss(params, batch)` and perhaps `predict(params, x)`
    classify: whether `predict` gives scores of classes, so that hits can be counted

    Not deterministic where a parameter is indexed, as in an embedding: there gradients are added with atomics.
    """

    deterministic = False

    def __init__(self, model: Any, memory: Memory, *, classify: bool) -> None:
        self._memory = memory
        self._value_and_grad = autodiff.value_and_grad(model.loss)
        self._loss = autodiff.forward(model.loss)
        predict = getattr(model, "predict", None)
        self._predict = autodiff.forward(predict) if classify and predict is not None else None
        self._room: dict[str, Any] = {}  # where gradients are computed

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
        bring, samples = self._memory.reader(parameters), self._memory.batch(batch)
        gradients = self._memory.gradients(out, on_ready)

        def send(name: str, first: int) -> None:
            if first == 0:  # the last rows of a large matrix do not go alone
                gradients.send(name, self._room[name])

        def gradient() -> float:
            values = bring(batch.key, before_read)
            x, y = samples()
            if not self._room:
                self._room = {name: namespace_of(v).empty(v.shape, v.dtype) for name, v in values.items()}
            gradients.begin()
            loss, _ = self._value_and_grad(values, Batch(x, y, batch.key), out=self._room, seed=weight, on_ready=send)
            gradients.finish()
            return loss

        return gradient

    def evaluate(self, parameters: Arrays, batch: Batch) -> Evaluation:
        values = self._memory.reader(parameters)(None, None)
        x, y = self._memory.batch(batch)()
        loss = float(self._loss(values, Batch(x, y)))
        correct = -1
        if self._predict is not None:
            correct = int((self._predict(values, x).argmax(axis=-1) == y).sum())
        return Evaluation(loss * batch.y.size, correct)
