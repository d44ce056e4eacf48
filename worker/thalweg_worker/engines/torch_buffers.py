"""The buffers of a module of PyTorch: what of them a forward pass changes, and what becomes of that.

Rules:
  - Running are those of float32 that a forward pass in training changes, and the statistics of normalisation layers.
    They are part of the model's state, averaged over the microbatches of a step: each starts from the same old ones.
  - `num_batches_tracked` of such a layer is a count of each process's own. No number depends on it where the layer has
    a momentum; where it has none, the statistics do.
  - What else changes would depend on which worker computes what. It is refused: before the start where a try shows it,
    else when it happens.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import torch

from thalweg_proto.errors import Problem, WorkerError

_Normalisation: Any = torch.nn.modules.batchnorm._NormBase  # BatchNorm and InstanceNorm of any number of dimensions
COUNT = "num_batches_tracked"


class _Place(NamedTuple):
    """Attribute `leaf` of the module `owner`, and the tensor that `build` put there; a forward pass may put another."""

    owner: Any
    leaf: str
    tensor: Any

    @property
    def now(self) -> Any:
        return getattr(self.owner, self.leaf)


class Buffers:
    """Those of one module, by name.

    first: as `build` made them: copies
    """

    def __init__(self, module: Any) -> None:
        self._places: dict[str, _Place] = {}
        for name, buffer in module.named_buffers():
            path, _, leaf = name.rpartition(".")
            self._places[name] = _Place(module.get_submodule(path), leaf, buffer)
        self.first = {name: buffer.detach().clone() for name, buffer in module.named_buffers()}
        # Of what is not running: the tensor, and its version, when looked at.
        self._seen: dict[str, tuple[Any, int]] = {}

    def put(self, values: dict[str, Any]) -> None:
        """What a forward pass starts from: these, by name; copied."""
        with torch.no_grad():
            for name, value in values.items():
                owner, leaf, tensor = self._places[name]
                if getattr(owner, leaf) is not tensor:
                    setattr(owner, leaf, tensor)
                tensor.copy_(value)

    def reset(self) -> None:
        """All as `build` made them."""
        self.put(self.first)

    def now(self, name: str) -> Any:
        """What a forward pass has made of a buffer; to be read before the next one."""
        return self._places[name].now.detach()

    def running(self) -> list[str]:
        """The names of what is running, after a forward pass that began with `first`."""
        return [name for name in self._places if self._is_statistic(name) or self._changed(name)]

    def problems(self, field: str) -> list[Problem]:
        """What of `running` cannot be averaged."""
        return [problem for name in self.running() if (problem := self._problem(name, field)) is not None]

    def _problem(self, name: str, field: str) -> Problem | None:
        place = self._places[name]
        if isinstance(place.owner, _Normalisation) and place.owner.momentum is None:
            hint = "without one they depend on how many batches each worker has seen: momentum=0.1 is PyTorch's default"
            return Problem(field, f"a momentum for {name}", "momentum=None", hint)
        first, now = self.first[name], place.now
        if now.shape != first.shape or now.dtype != first.dtype:
            return Problem(field, f"buffers that keep their shape, {name} too", f"one that becomes {tuple(now.shape)}")
        if first.dtype != torch.float32 or first.device.type != "cpu":
            found = f"{name} of {str(first.dtype).removeprefix('torch.')} on {first.device}, changed by a forward pass"
            hint = "only such buffers can be averaged over microbatches; others would depend on who computes what"
            return Problem(field, "buffers of float32 on the CPU, where a forward pass changes them", found, hint)
        return None

    def _is_statistic(self, name: str) -> bool:
        """Also those that one batch happens to leave as they are."""
        owner, leaf, _ = self._places[name]
        return isinstance(owner, _Normalisation) and owner.training and leaf != COUNT

    def _changed(self, name: str) -> bool:
        owner, leaf, _ = self._places[name]
        counts = isinstance(owner, _Normalisation) and leaf == COUNT
        return not counts and not _same(self._places[name].now, self.first[name])

    def check_the_rest(self, running: Iterable[str]) -> None:
        """WorkerError where a buffer that is not `running` is no more what it was; after a forward pass.

        One of another shape may be: a table that grows with the longest input.
        """
        for name in self._places.keys() - running:
            now = self._places[name].now
            seen, version = self._seen.get(name, (None, 0))
            if now is seen and now._version == version:
                continue
            if self._changed(name) and now.shape == self.first[name].shape:
                raise WorkerError(
                    f"the buffer {name} of the module changed in a forward pass; it did not when the module was tried "
                    "before the start, so it is not averaged over the workers. Let each forward pass change it in "
                    "training, or none"
                )
            self._seen[name] = (now, now._version)


def _same(one: Any, other: Any) -> bool:
    """NaN is the same as NaN."""
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    return bool(((one == other) | ((one != one) & (other != other))).all())
