"""Weights as a state dict of PyTorch."""

from __future__ import annotations

import io
from typing import Any

import torch

from thalweg_worker.engines.torch_model import TorchModel
from thalweg_worker.models import Parameters


def state_dict_file(parameters: Parameters, model: TorchModel | None) -> bytes:
    """For `module.load_state_dict(torch.load(file, weights_only=True))`.

    With a model: all that its module has, tied parameters under each of their names, frozen ones and buffers too. What
    `parameters` names has their values, all else is as the user's `build` made it. Without one: a dict of tensors.
    """
    if model is None:
        state = {name: torch.from_numpy(array.copy()) for name, array in parameters.items()}
    else:
        fill(model.module, parameters)
        state = model.module.state_dict()
    stream = io.BytesIO()
    torch.save(state, stream)
    return stream.getvalue()


def shapes(model: TorchModel) -> dict[str, tuple[int, ...]]:
    """Of all parameters and buffers, by name."""
    return {name: tuple(each.shape) for name, each in _tensors(model.module).items()}


def fill(module: Any, parameters: Parameters) -> None:
    """Gives parameters and buffers of a module these values, in place, so that what is tied to one stays tied."""
    tensors = _tensors(module)
    with torch.no_grad():
        for name, array in parameters.items():
            tensors[name].copy_(torch.from_numpy(array.copy()))


def _tensors(module: Any) -> dict[str, Any]:
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}
