"""Recording: a chain is the list of instructions of one function, in the order in which they run.

The backward pass is recorded behind the forward pass, with the same operations and in the same list: a vector-Jacobian
product is itself a few operations on tensors. So there is one kind of instruction, and the planner (plan.py) sees
every read and every write of a step at once.

A kernel is called as `kernel(*inputs, out, *scratch)`. It writes all of `out`, never an input, and allocates nothing
that grows with its arrays. `reuse` names the inputs on whose memory `out` may lie: for each element or row, the kernel
has read that input by the time it writes there. `rows(begin, end)`, where there is such, makes the kernel that writes
these rows of `out` alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from thalweg_worker.autodiff.tensor import Layout, Tensor

Kernel = Callable[..., Any]
Rows = Callable[[int, int], Kernel]


@dataclass(frozen=True, eq=False)
class Instruction:
    kernel: Kernel
    inputs: tuple[Tensor, ...]
    out: Tensor
    scratch: tuple[Tensor, ...]
    reuse: tuple[int, ...]
    rows: Rows | None


class Chain:
    """What one recording writes down.

    xp:    the array namespace, numpy or cupy
    dtype: the one floating dtype in which the chain computes, that of the parameters
    """

    def __init__(self, xp: ModuleType, dtype: np.dtype[Any]) -> None:
        self.xp = xp
        self.dtype = dtype
        self.tensors: list[Tensor] = []  # tensors[i].slot == i
        self.instructions: list[Instruction] = []
        self.constants: dict[int, Any] = {}  # slot to array
        self.random_masks = 0  # how many were drawn: what tells the masks of one step apart

    def leaf(self, shape: tuple[int, ...], dtype: np.dtype[Any], *, tracked: bool = False) -> Tensor:
        """A tensor whose array is handed in at each replay."""
        return self._tensor(shape, dtype, tracked=tracked)

    def constant(self, value: Any, dtype: Any = None) -> Tensor:
        """A tensor whose array is known now; arrays are kept by reference where their dtype is right."""
        array = self.xp.asarray(value, dtype=dtype)
        tensor = self._tensor(array.shape, array.dtype)
        self.constants[tensor.slot] = array
        return tensor

    def emit(
        self,
        kernel: Kernel,
        inputs: Sequence[Tensor],
        shape: tuple[int, ...],
        dtype: Any = None,
        *,
        reuse: Sequence[int] = (),
        scratch: Sequence[tuple[tuple[int, ...], Any]] = (),
        rows: Rows | None = None,
    ) -> Tensor:
        """Record one instruction; its result has `shape` and `dtype` (default: the chain's)."""
        out = self._tensor(shape, np.dtype(dtype or self.dtype), computed=True)
        spaces = tuple(self._tensor(shape, np.dtype(dtype), computed=True) for shape, dtype in scratch)
        self.instructions.append(Instruction(kernel, tuple(inputs), out, spaces, tuple(reuse), rows))
        return out

    def view(
        self, base: Tensor, layout: Layout, shape: tuple[int, ...], *, dense: bool = False, undo: Layout | None = None
    ) -> Tensor:
        """Record `layout(base)`, which shares the memory of `base`."""
        return self._tensor(shape, base.dtype, base=base, layout=layout, undo=undo, dense=dense)

    def _tensor(self, shape: tuple[int, ...], dtype: np.dtype[Any], **rest: Any) -> Tensor:
        tensor = Tensor(self, len(self.tensors), shape, dtype, **rest)
        self.tensors.append(tensor)
        return tensor
