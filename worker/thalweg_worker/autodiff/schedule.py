"""Scheduling: where between its instructions a run asks for parameters and tells of gradients.

Pure: planned instructions in, segments out. A mark is a parameter's name and an element, counted in the flat array:

    ask   (name, end) before the first instruction that reads an element before `end` for which no earlier mark asked
    tell  (name, first) after the instruction, or the tile of one, that makes the gradient final in [first, size)

Before the first instruction that writes into memory of the caller's stand the asks for all that is left, of all
parameters: until the new version is there as a whole, others may read an old one in that memory. That instruction may
be one of the forward pass, since plan.py computes in that memory as early as it can.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from thalweg_worker.autodiff.chain import Instruction, Kernel
from thalweg_worker.autodiff.plan import Plan
from thalweg_worker.autodiff.tensor import Tensor
from thalweg_worker.autodiff.tiles import gradient_tiles

Mark = tuple[str, int]


@dataclass(kw_only=True)
class Segment:
    """What runs without a mark in between: kernels, each with the instruction whose arrays it is called with.

    asks: the marks before them
    tell: the mark after them
    """

    asks: list[Mark] = field(default_factory=list)
    kernels: list[tuple[Kernel, Instruction]] = field(default_factory=list)
    tell: Mark | None = None


def schedule(memory: Plan, pinned: Mapping[int, str], parameters: Mapping[str, Tensor]) -> list[Segment]:
    """Cut the instructions at their marks.

    pinned:     slots of gradients that lie in memory of the caller's, to the names of their parameters
    parameters: the leaves to ask for, by name
    """
    asks, segments = _Asks(parameters), [Segment()]
    for instruction in memory.instructions:
        in_pinned = memory.home[instruction.out.slot] in pinned
        if marks := asks.for_the_rest() if in_pinned else asks.before(instruction):
            segments.append(Segment(asks=marks))
        name = pinned.get(instruction.out.slot)
        if name is None:
            segments[-1].kernels.append((instruction.kernel, instruction))
        else:
            for kernel, first in _tiles(instruction):
                segments[-1].kernels.append((kernel, instruction))
                segments[-1].tell = name, first
                segments.append(Segment())
    return segments


class _Asks:
    """What a run has asked for so far."""

    def __init__(self, parameters: Mapping[str, Tensor]) -> None:
        self._names = {p.slot: name for name, p in parameters.items()}
        self._sizes = {name: p.size for name, p in parameters.items()}
        self._ends = dict.fromkeys(parameters, -1)  # less than 0, so that an empty parameter is asked for, too

    def before(self, instruction: Instruction) -> list[Mark]:
        """For what `instruction` reads."""
        reads = [(self._names.get(x.root.slot), x) for x in instruction.inputs]
        return [mark for name, x in reads if name is not None for mark in self._ask(name, _end(x))]

    def for_the_rest(self) -> list[Mark]:
        return [mark for name, size in self._sizes.items() for mark in self._ask(name, size)]

    def _ask(self, name: str, end: int) -> list[Mark]:
        if end <= self._ends[name]:
            return []
        self._ends[name] = end
        return [(name, end)]


def _end(x: Tensor) -> int:
    """One more than the last element of its root that `x` shows, counted in the flat array."""
    if x.chain.xp is not np:
        return x.root.size  # what follows would need an array on the device
    layouts = []
    while x.base is not None:
        assert x.layout is not None
        layouts.append(x.layout)
        x = x.base
    whole = np.empty(x.shape, np.bool_)  # a byte for each element, so that addresses count elements; never touched
    part = whole
    for layout in reversed(layouts):
        part = layout(part)
    if part.size == 0:
        return 0
    steps = sum((length - 1) * stride for length, stride in zip(part.shape, part.strides, strict=True) if stride > 0)
    return int(part.ctypes.data - whole.ctypes.data + steps + 1)


def _tiles(instruction: Instruction) -> list[tuple[Kernel, int]]:
    """The kernels that compute a gradient, each with the element from which it is final after that."""
    if instruction.rows is None:
        return [(instruction.kernel, 0)]
    height, width = instruction.out.shape
    return [(instruction.rows(begin, end), begin * width) for begin, end in gradient_tiles((height, width))]
