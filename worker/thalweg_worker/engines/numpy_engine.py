"""The engine that needs nothing but NumPy: our own reverse-mode differentiation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from thalweg_worker import autodiff
from thalweg_worker.batch import Batch
from thalweg_worker.engines.protocol import Arrays, BeforeRead, Evaluation, OnReady


class NumpyEngine:
    """Differentiates `model.loss` on the CPU; deterministic with one BLAS thread.

    model:    anything with `loss(params, batch)` and perhaps `predict(params, x)`
    classify: whether `predict` gives scores of classes, so that hits can be counted
    """

    deterministic = True

    def __init__(self, model: Any, *, classify: bool) -> None:
        self._value_and_grad = autodiff.value_and_grad(model.loss)
        self._loss = autodiff.forward(model.loss)
        predict = getattr(model, "predict", None)
        self._predict = autodiff.forward(predict) if classify and predict is not None else None

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
        return self._value_and_grad.bind(
            parameters, batch, out=out, seed=weight, before_read=before_read, on_ready=on_ready
        )

    def evaluate(self, parameters: Arrays, batch: Batch) -> Evaluation:
        loss = float(self._loss(parameters, batch))
        if self._predict is None:
            correct = -1
        else:
            scores = self._predict(parameters, batch.x)
            correct = int(np.count_nonzero(np.argmax(scores, axis=-1) == batch.y))
        return Evaluation(loss * batch.y.size, correct)
