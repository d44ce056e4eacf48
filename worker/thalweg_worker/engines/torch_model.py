"""A user's `torch.nn.Module` as a model of a job.

    def build(data_spec: DataSpec, **options) -> nn.Module | tuple[nn.Module, Callable]

The module gets a tensor of the shape of `Batch.x`. With it may come a loss, `loss(output, y)`, the mean over the batch;
by default it is the cross-entropy of scores (n, *target_shape, classes) with class indices, or the mean squared error.

Rules:
  - Trained is what requires a gradient, each tensor once, whatever it is tied to. What does not is as `build` made it,
    in each process anew: it has to follow from the job's seed, with which PyTorch's generator begins, or from a file.
  - What a forward pass changes, running statistics, is averaged over the microbatches of a step (torch_buffers.py).
  - PyTorch is imported where this file is, and nowhere else: who uses no module of PyTorch needs none.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from thalweg_proto.errors import InputError, Problem
from thalweg_worker.batch import Batch, DataSpec
from thalweg_worker.engines.foreign import file_of, too_old
from thalweg_worker.engines.memory import unguarded
from thalweg_worker.engines.torch_buffers import Buffers
from thalweg_worker.models import ModelSource, Parameters
from thalweg_worker.models.checks import expected_output, parameter_problems, raised, unused_problems

Loss = Callable[[Any, Any], Any]


class TorchModel:
    """What `build` returned.

    module:  in training mode
    loss:    of what the module returns, and the targets
    trained: the parameters that require a gradient, by name
    buffers: the module's
    """

    def __init__(self, module: Any, loss: Loss | None, spec: DataSpec) -> None:
        self.module = module.train()
        self.spec = spec
        self.own_loss = loss is not None
        self.loss = loss or _default_loss(spec)
        self.trained: dict[str, Any] = {name: p for name, p in module.named_parameters() if p.requires_grad}
        self.buffers = Buffers(module)

    @classmethod
    def build(cls, source: ModelSource, spec: DataSpec, seed: int) -> TorchModel:
        """Calls the user's function. InputError where there is none, it raises, or returns something else;
        or where PyTorch is too old."""
        if not hasattr(torch.Tensor, "register_post_accumulate_grad_hook"):  # with it, a gradient needs no other copy
            raise too_old("torch", "PyTorch 2.1", str(torch.__version__))
        file = file_of(source, "torch", "a torch.nn.Module")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed % 2**63)
            built: Any = source.build(spec)
        module, loss = built if isinstance(built, tuple) and len(built) == 2 else (built, None)
        if not isinstance(module, torch.nn.Module) or not (loss is None or callable(loss)):
            field = f"model.use ({file.name}:{source.use})"
            expected = "a torch.nn.Module, or a pair of it and a loss(output, y), with the engine torch"
            raise InputError([Problem(field, expected, _describe(built))])
        return cls(module, loss, spec)

    def on(self, device: Any) -> TorchModel:
        """This model on a device of PyTorch: its module is moved there, and a loss that is one."""
        if all(each.device == device for each in (*self.module.parameters(), *self.module.buffers())):
            return self
        loss = self.loss.to(device) if isinstance(self.loss, torch.nn.Module) else self.loss
        return TorchModel(self.module.to(device), loss if self.own_loss else None, self.spec)

    def init(self, rng: np.random.Generator) -> Parameters:
        """As `build` made them, and not from `rng`: copies."""
        return {name: p.detach().cpu().numpy().copy() for name, p in self.trained.items()}

    def check(self, batch: Batch) -> list[Problem]:
        """Every mistake that shows on one batch; an empty list where the module can be trained. Raises nothing."""
        problems = self._parameter_problems()
        if problems:
            return problems
        try:
            return self._run_problems(torch.from_numpy(batch.x), torch.from_numpy(batch.y))
        except (Exception, SystemExit) as error:
            return [raised(self._field, error)]
        finally:
            self.buffers.reset()

    def averaged(self, batch: Batch) -> Parameters:
        """The buffers that a forward pass on `batch` changes, by name, as `build` made them: copies.

        batch: one with which `check` found no mistake
        """
        try:
            self.module(torch.from_numpy(batch.x))
            return {name: self.buffers.first[name].numpy().copy() for name in self.buffers.running()}
        finally:
            self.buffers.reset()

    @property
    def _field(self) -> str:
        return f"model.use ({type(self.module).__name__})"

    def _parameter_problems(self) -> list[Problem]:
        field = self._field
        if not self.trained:
            frozen = sum(1 for _ in self.module.parameters())
            found = f"{frozen} parameters, none of which requires a gradient" if frozen else "no parameters"
            return [Problem(field, "a module with parameters to train", found)]
        problems = []
        for name, parameter in self.trained.items():
            if parameter.dtype != torch.float32:
                found, hint = str(parameter.dtype).removeprefix("torch."), "build the module in float32: module.float()"
                problems.append(Problem(field, f"{name} of dtype float32", found, hint))
        problems += self._elsewhere()
        return problems or parameter_problems(self.init(np.random.default_rng(0)), field=field)

    def _elsewhere(self) -> list[Problem]:
        """What is on another device, frozen parameters and buffers too: one problem for each device."""
        names: dict[str, list[str]] = {}
        for name, each in (*self.module.named_parameters(), *self.module.named_buffers()):
            if each.device.type != "cpu":
                names.setdefault(str(each.device), []).append(name)
        hint = "build the module without a device, or return module.cpu(): a worker with a GPU moves it there"
        expected = "a module on the CPU, where the data is"
        return [Problem(self._field, expected, f"on {device}: {_few(on)}", hint) for device, on in names.items()]

    def _run_problems(self, x: Any, y: Any) -> list[Problem]:
        output = self.module(x)
        problems = [] if self.own_loss else self._output_problems(output, len(x))
        if problems:
            return problems
        loss = self.loss(output, y)
        return self._loss_problems(loss) or [*self._unused(loss), *self._buffer_problems()]

    def scores(self, output: Any, samples: int) -> bool:
        """Whether the output is the scores of classes, of which the highest is the prediction."""
        _, expected = expected_output(self.spec, samples)
        return self.spec.task == "classification" and tuple(getattr(output, "shape", ())) == expected

    def _output_problems(self, output: Any, samples: int) -> list[Problem]:
        what, expected = expected_output(self.spec, samples)
        shape = tuple(output.shape) if isinstance(output, torch.Tensor) else None
        if shape == expected:
            return []
        return [Problem(f"{self._field}: output", f"{what} = {expected}", _describe(output))]

    def _loss_problems(self, loss: Any) -> list[Problem]:
        field = f"{self._field}: loss"
        if not isinstance(loss, torch.Tensor) or loss.shape != ():
            return [Problem(field, "a scalar tensor", _describe(loss), "return its mean over the batch: .mean()")]
        return []

    def _unused(self, loss: Any) -> list[Problem]:
        gradients: Any = [None] * len(self.trained)
        if loss.requires_grad:  # else PyTorch has nothing to differentiate
            gradients = torch.autograd.grad(loss, list(self.trained.values()), allow_unused=True)
        unused = [name for name, gradient in zip(self.trained, gradients, strict=True) if gradient is None]
        return unused_problems(f"{self._field}: loss", self.trained, unused)

    def _buffer_problems(self) -> list[Problem]:
        problems = self.buffers.problems(self._field)
        if problems:
            return problems
        first = {name: self.buffers.first[name].numpy() for name in self.buffers.running()}
        return parameter_problems(first, field=self._field) if first else []


def _default_loss(spec: DataSpec) -> Loss:
    functional: Any = torch.nn.functional
    if spec.task == "classification" and spec.target_shape:
        # PyTorch has the classes on the second axis; here they are on the last one, where a module has them.
        return lambda output, y: functional.cross_entropy(output.flatten(0, -2), y.flatten())
    loss: Loss = functional.cross_entropy if spec.task == "classification" else functional.mse_loss
    return loss


def _few(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _describe(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    return f"a {type(value).__name__}"


def tensor(array: NDArray[Any]) -> Any:
    """A tensor on the same memory; of a read-only array, too, and nobody may write to that."""
    return torch.from_numpy(unguarded(array))
