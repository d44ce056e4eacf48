"""The engine of PyTorch: a user's module, on the very memory of the job.

Rules:
  - The module's parameters are views of the version that a step starts from, without a copy; what a backward pass
    gives goes where the gradient belongs as soon as it is there.
  - What is random in a module follows from (seed, step, microbatch), so it is the same whoever computes it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from thalweg_worker.batch import Batch
from thalweg_worker.engines.foreign import random_bytes
from thalweg_worker.engines.memory import keep_freed_memory
from thalweg_worker.engines.protocol import Arrays, BeforeRead, Evaluation, OnReady
from thalweg_worker.engines.torch_model import TorchModel, tensor


class TorchEngine:
    """Differentiates a TorchModel on the CPU, with one thread and deterministic algorithms."""

    deterministic = True

    def __init__(self, model: TorchModel) -> None:
        keep_freed_memory()
        torch.set_num_threads(1)  # the host's CPUs are dealt out to workers; and more would change the bits
        torch.use_deterministic_algorithms(True)
        self._model = model
        self._trained = model.trained
        self._out: dict[str, Any] = {}
        self._ready: OnReady | None = None
        self._open: set[str] = set()
        for name, parameter in self._trained.items():
            parameter.grad = None
            parameter.register_post_accumulate_grad_hook(partial(self._accumulated, name))

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
        at = {name: tensor(parameters[name]) for name in self._trained}
        to = {name: tensor(out[name]) for name in self._trained}
        x, y, seed = tensor(batch.x), tensor(batch.y), torch.tensor(weight, dtype=torch.float32)
        model = self._model

        def gradient() -> float:
            if before_read is not None:
                for name, array in parameters.items():
                    before_read(name, array.size)
            self._point_at(at)
            self._out, self._ready, self._open = to, on_ready, set(to)
            torch.random.default_generator.manual_seed(int.from_bytes(random_bytes(batch), "little") >> 1)
            loss = model.loss(model.module(x), y)
            loss.backward(seed)
            for name in list(self._open):  # this batch did not come through there
                to[name].zero_()
                self._final(name)
            return float(loss.detach())

        return gradient

    def _accumulated(self, name: str, parameter: Any) -> None:
        """Called by PyTorch when all that goes into the gradient of a parameter is summed."""
        self._out[name].copy_(parameter.grad)
        parameter.grad = None
        self._final(name)

    def _final(self, name: str) -> None:
        self._open.discard(name)
        if self._ready is not None:
            self._ready(name, 0)

    def _point_at(self, tensors: dict[str, Any]) -> None:
        for name, parameter in self._trained.items():
            parameter.data = tensors[name]

    def evaluate(self, parameters: Arrays, batch: Batch) -> Evaluation:
        self._point_at({name: tensor(parameters[name]) for name in self._trained})
        model = self._model
        model.module.eval()
        try:
            with torch.no_grad():
                y = tensor(batch.y)
                output = model.module(tensor(batch.x))
                loss = float(model.loss(output, y))
                correct = -1
                if model.scores(output, len(y)):
                    correct = int((output.argmax(dim=-1) == y).sum())
        finally:
            model.module.train()
        return Evaluation(loss * batch.y.size, correct)
