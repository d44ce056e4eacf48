"""The layout of all parameters in one flat float32 vector.

Rules:
  - Tensors lie in the order of their names, sorted. So the data section of a safetensors file, which is sorted
    likewise, is the vector without its gaps, and anyone can check `weights_sha256` without code of ours.
  - Each tensor begins at a multiple of 16 elements (64 bytes: a cache line and a vector register). The gap before it is
    zero and stays zero under every rule, since its gradient is zero.
  - Elements are float32, little-endian, row-major.
  - What a forward pass changes of a model (running statistics) lies among the parameters, under its own name. No rule
    updates it: the next version is the mean of what the microbatches made of it.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Container, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

ALIGNMENT_ELEMENTS = 16


@dataclass(frozen=True)
class TensorSlot:
    """One parameter's place: elements [begin, end) of the flat vector, seen as `shape`.

    averaged: it is averaged over the microbatches, not trained
    """

    name: str
    shape: tuple[int, ...]
    begin: int
    end: int
    averaged: bool = False


@dataclass(frozen=True)
class Layout:
    """Where each parameter lies in the flat vector.

    tensors: in the order of their names
    size:    elements of the flat vector, gaps counted, a multiple of 16
    """

    tensors: tuple[TensorSlot, ...]
    size: int

    @classmethod
    def of(cls, shapes: Mapping[str, tuple[int, ...]], averaged: Container[str] = ()) -> Layout:
        """The layout for parameters of these names and shapes, some of which are `averaged`."""
        tensors = []
        begin = 0
        for name in sorted(shapes):
            shape = tuple(int(axis) for axis in shapes[name])
            end = begin + math.prod(shape)
            tensors.append(TensorSlot(name, shape, begin, end, name in averaged))
            begin = -(-end // ALIGNMENT_ELEMENTS) * ALIGNMENT_ELEMENTS
        return cls(tuple(tensors), begin)

    @property
    def parameters(self) -> int:
        """How many numbers the model has, gaps not counted."""
        return sum(tensor.end - tensor.begin for tensor in self.tensors)

    @property
    def averaged(self) -> tuple[tuple[int, int], ...]:
        """The ranges [begin, end) of the flat vector that are averaged, ascending; of neighbours one, with the gap."""
        ranges: list[tuple[int, int]] = []
        before = False
        for tensor in self.tensors:
            if tensor.averaged:
                begin = ranges.pop()[0] if before else tensor.begin
                ranges.append((begin, tensor.end))
            before = tensor.averaged
        return tuple(ranges)

    @property
    def names_sha256(self) -> str:
        """The hex SHA-256 of all names and shapes: equal where two processes mean the same model."""
        named = [(t.name, t.shape, "averaged") if t.averaged else (t.name, t.shape) for t in self.tensors]
        return hashlib.sha256(repr(named).encode()).hexdigest()

    def views(self, flat: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        """The parameters by name, as views of `flat` (shape (size,)): writing to one writes to the vector."""
        return {t.name: flat[t.begin : t.end].reshape(t.shape) for t in self.tensors}

    def locate(self, index: int) -> tuple[str, tuple[int, ...]]:
        """The tensor that holds element `index` of the flat vector, and the position within the tensor.

        Raises IndexError where `index` falls in a gap or outside.
        """
        for tensor in self.tensors:
            if tensor.begin <= index < tensor.end:
                position = np.unravel_index(index - tensor.begin, tensor.shape)
                return tensor.name, tuple(int(axis) for axis in position)
        raise IndexError(f"element {index} belongs to no tensor of a layout of {self.size} elements")

    def sha256(self, flat: NDArray[np.float32]) -> str:
        """The hex SHA-256 of all parameters in layout order, little-endian, gaps left out."""
        digest = hashlib.sha256()
        for tensor in self.tensors:
            digest.update(flat[tensor.begin : tensor.end].astype("<f4", copy=False).data)
        return digest.hexdigest()
