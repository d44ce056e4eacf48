"""The engine of PyTorch: a user's module, on the very memory of the job, or on a GPU.

Rules:
  - On the CPU the module's parameters are views of the version that a step starts from, without a copy; what a backward
    pass gives goes where the gradient belongs as soon as it is there. On a GPU both are copied (staging.py).
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
from numpy.typing import NDArray

from thalweg_worker.batch import Batch
from thalweg_worker.batches import made_up_batch
from thalweg_worker.engines.foreign import random_bytes
from thalweg_worker.engines.memory import keep_freed_memory
from thalweg_worker.engines.protocol import Arrays, BeforeRead, Evaluation, OnReady
from thalweg_worker.engines.staging import Gradients, HostMemory, Memory
from thalweg_worker.engines.torch_model import TorchModel, tensor


class TorchEngine:
    """Differentiates a TorchModel, on the CPU with one thread, with deterministic algorithms."""

    deterministic = True

    def __init__(
        self,
        model: TorchModel,
        *,
        autocast: bool = False,
        compiled: Iterable[int] = (),
        memory: Memory | None = None,
        device: str = "cpu",
    ) -> None:
        """
        autocast: a forward pass computes in bfloat16 what torch.autocast has compute in it; the loss is float32's
        compiled: the sizes of microbatches for which the module is compiled, here and now; none: it is not
        memory:   where parameters and batches are; None: in memory of the host, in place
        device:   of PyTorch, where that is; the module is moved there
        """
        keep_freed_memory()
        torch.set_num_threads(1)  # the host's CPUs are dealt out to workers; and more would change the bits
        torch.use_deterministic_algorithms(True)
        # With these, PyTorch fills all memory that it takes with NaN, lest a module should read what nobody wrote. That
        # would be a mistake anywhere, and a step takes 3 to 7 % longer.
        torch.utils.deterministic.fill_uninitialized_memory = False
        torch.backends.cudnn.benchmark = False  # by time it would choose now this algorithm, now that
        self._device = torch.device(device)
        self._memory = memory or HostMemory(tensor, _writer)
        self._model = model = model.on(self._device)
        self._autocast = autocast
        self._trained = model.trained
        self._gradients: Gradients | None = None  # of the pass that goes on
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
        self._memory.forget()

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
        bring = self._memory.reader(parameters)
        samples, gradients = self._memory.batch(batch), self._memory.gradients(out, on_ready)
        seed = torch.tensor(weight, dtype=torch.float32, device=self._device)
        model = self._model

        def gradient() -> float:
            old = self._put(bring(batch.key, before_read))
            x, y = samples()
            self._gradients = gradients
            gradients.begin()
            self._draw_from(int.from_bytes(random_bytes(batch), "little") >> 1)
            output = self._output(self._forward, x)
            self._hand_in(gradients, old, seed)  # before the backward pass: no gradient in the vector waits for it
            loss = model.loss(output, y)
            loss.backward(seed.to(loss.dtype))
            gradients.finish()
            return float(loss.detach())

        return gradient

    def _draw_from(self, seed: int) -> None:
        torch.random.default_generator.manual_seed(seed)
        if self._device.type == "cuda":
            torch.cuda.manual_seed(seed)

    def _output(self, forward: Any, x: Any) -> Any:
        if not self._autocast:
            return forward(x)
        with torch.autocast(self._device.type, dtype=torch.bfloat16):
            output = forward(x)
        return output.float() if isinstance(output, torch.Tensor) else output

    def _hand_in(self, gradients: Gradients, old: dict[str, Any], weight: Any) -> None:
        """Hands in what the forward pass made of the running buffers."""
        buffers = self._model.buffers
        buffers.check_the_rest(old)
        with torch.no_grad():
            for name, before in old.items():
                gradients.send(name, torch.sub(before, buffers.now(name)).mul_(weight))

    def _accumulated(self, name: str, parameter: Any) -> None:
        """Called by PyTorch when all that goes into the gradient of a parameter is summed."""
        assert self._gradients is not None  # set before each backward pass
        self._gradients.send(name, parameter.grad)
        parameter.grad = None

    def _put(self, values: dict[str, Any]) -> dict[str, Any]:
        """Gives the module its parameters and running buffers; returns the latter."""
        old = dict(values)
        for name, parameter in self._trained.items():
            parameter.data = old.pop(name)
        self._model.buffers.put(old)
        return old

    def evaluate(self, parameters: Arrays, batch: Batch) -> Evaluation:
        self._put(self._memory.reader(parameters)(None, None))
        model = self._model
        model.module.eval()
        try:
            with torch.no_grad():
                x, y = self._memory.batch(batch)()
                output = self._output(model.module, x)
                loss = float(model.loss(output, y))
                correct = -1
                if model.scores(output, len(y)):
                    correct = int((output.argmax(dim=-1) == y).sum())
        finally:
            model.module.train()
        return Evaluation(loss * batch.y.size, correct)


def _writer(array: NDArray[Any]) -> Callable[[Any], Any]:
    """What copies a tensor into `array`."""
    copy: Callable[[Any], Any] = tensor(array).copy_
    return copy


def _compiled(module: Any) -> Any:
    config: Any = importlib.import_module("torch._inductor.config")
    config.compile_threads = 1  # else a pool of processes, and each worker has one CPU
    return torch.compile(module, dynamic=False)
