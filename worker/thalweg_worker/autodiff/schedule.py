"""Scheduling: after which instructions a run tells that a gradient is final.

Pure: planned instructions in, segments out. A mark is a parameter's name and an element, counted in the flat array:

    tell  (name, first) after the instruction, or the tile of one, that makes the gradient final in [first, size)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from thalweg_worker.autodiff.chain import Instruction, Kernel
from thalweg_worker.autodiff.tiles import gradient_tiles

Mark = tuple[str, int]


@dataclass(kw_only=True)
class Segment:
    """What runs without a mark in between: kernels, each with the instruction whose arrays it is called with.

    tell: the mark after them
    """

    kernels: list[tuple[Kernel, Instruction]] = field(default_factory=list)
    tell: Mark | None = None


def schedule(instructions: Sequence[Instruction], pinned: Mapping[int, str]) -> list[Segment]:
    """Cut the instructions at their marks.

    pinned: slots of gradients that lie in memory of the caller's, to the names of their parameters
    """
    segments = [Segment()]
    for instruction in instructions:
        name = pinned.get(instruction.out.slot)
        if name is None:
            segments[-1].kernels.append((instruction.kernel, instruction))
        else:
            for kernel, first in _tiles(instruction):
                segments[-1].kernels.append((kernel, instruction))
                segments[-1].tell = name, first
                segments.append(Segment())
    return segments


def _tiles(instruction: Instruction) -> list[tuple[Kernel, int]]:
    """The kernels that compute a gradient, each with the element from which it is final after that."""
    if instruction.rows is None:
        return [(instruction.kernel, 0)]
    height, width = instruction.out.shape
    return [(instruction.rows(begin, end), begin * width) for begin, end in gradient_tiles((height, width))]
