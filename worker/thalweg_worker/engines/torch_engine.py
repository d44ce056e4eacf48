"""The engine of PyTorch: a user's module, on the very memory of the job.

Rules:
  - The module's parameters are views of the version that a step starts from, without a copy; what a backward pass
    gives goes where the gradient belongs as soon as it is there.
  - The running buffers of a version are copied into the module before each forward pass, which changes them.
  - What is random in a module follows from (seed, step, microbatch), so it is the same whoever computes it.
  - Compiled it is for each size of a microbatch by itself: code for any size may give other bits than code for one, and
    which of them a worker had would depend on what it computed first.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import numpy as np
import torch

from thalweg_worker.batch import Batch
from thalweg_worker.batches import made_up_batch
from thalweg_worker.engines.foreign import random_bytes
from thalweg_worker.engines.memory import keep_freed_memory
from thalweg_worker.engines.protocol import Arrays, BeforeRead, Evaluation, OnReady
from thalweg_worker.engines.torch_model import TorchModel, tensor


class TorchEngine:
    """Differentiates a TorchModel on the CPU, with one thread and deterministic algorithms."""

    deterministic = True

    def __init__(self, model: TorchModel, *, autocast: bool = False, compiled: Iterable[int] = ()) -> None:
        """
        autocast: a forward pass computes in bfloat16 what torch.autocast has compute in it; the loss is float32's
        compiled: the sizes of microbatches for which the module is compiled, here and now; none: it is not
        """
        keep_freed_memory()
        torch.set_num_threads(1)  # the host's CPUs are dealt out to workers; and more would change the bits
        torch.use_deterministic_algorithms(True)
        # With these, PyTorch fills all memory that it takes with NaN, lest a module should read what nobody wrote. That
        # would be a mistake anywhere, and a step takes 3 to 7 % longer.
        torch.utils.deterministic.fill_uninitialized_memory = False
        self._model = model
        self._autocast = autocast
        self._trained = model.trained
        self._out: dict[str, Any] = {}
        self._ready: OnReady | None = None
        self._open: set[str] = set()
        for name, parameter in self._trained.items():
            parameter.grad = None
            parameter.register_post_accumulate_grad_hook(partial(self._accumulated, name))
        sizes = list(compiled)
        self._forward = _compiled(model.module) if sizes else model.module
        for size in sizes:
            self._try(size)

    def _try(self, size: int) -> None:
        """A gradient that nobody wants: else the first one would take so long that the worker counts as hanging."""
        batch = made_up_batch(self._model.spec, size)
        parameters = self._model.init(np.random.default_rng(0)) | self._model.averaged(batch)
        out = {name: np.empty_like(array) for name, array in parameters.items()}
        self.gradient(parameters, batch, weight=1.0, out=out)()

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
        old = {name: tensor(parameters[name]) for name in parameters.keys() - self._trained.keys()}
        change = {name: tensor(out[name]) for name in out if name in old}
        x, y, seed = tensor(batch.x), tensor(batch.y), torch.tensor(weight, dtype=torch.float32)
        model = self._model

        def gradient() -> float:
            if before_read is not None:
                for name, array in parameters.items():
                    before_read(name, array.size)
            self._point_at(at)
            self._out, self._ready, self._open = to, on_ready, set(to)
            torch.random.default_generator.manual_seed(int.from_bytes(random_bytes(batch), "little") >> 1)
            model.buffers.put(old)
            output = self._output(self._forward, x)
            self._hand_in(change, old, seed)  # before the backward pass: no gradient in the vector waits for it
            loss = model.loss(output, y)
            loss.backward(seed.to(loss.dtype))
            for name in list(self._open):  # this batch did not come through there
                to[name].zero_()
                self._final(name)
            return float(loss.detach())

        return gradient

    def _output(self, forward: Any, x: Any) -> Any:
        if not self._autocast:
            return forward(x)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            output = forward(x)
        return output.float() if isinstance(output, torch.Tensor) else output

    def _hand_in(self, change: dict[str, Any], old: dict[str, Any], weight: Any) -> None:
        """Writes down what the forward pass made of the running buffers."""
        buffers = self._model.buffers
        buffers.check_the_rest(old)
        with torch.no_grad():
            for name, into in change.items():
                torch.sub(old[name], buffers.now(name), out=into)
                into.mul_(weight)
                self._final(name)

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
        model.buffers.put({name: tensor(parameters[name]) for name in parameters.keys() - self._trained.keys()})
        model.module.eval()
        try:
            with torch.no_grad():
                y = tensor(batch.y)
                output = self._output(model.module, tensor(batch.x))
                loss = float(model.loss(output, y))
                correct = -1
                if model.scores(output, len(y)):
                    correct = int((output.argmax(dim=-1) == y).sum())
        finally:
            model.module.train()
        return Evaluation(loss * batch.y.size, correct)


def _compiled(module: Any) -> Any:
    config: Any = importlib.import_module("torch._inductor.config")
    config.compile_threads = 1  # else a pool of processes, and each worker has one CPU
    return torch.compile(module, dynamic=False)
