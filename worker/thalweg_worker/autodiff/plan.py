"""Planning: which instructions are needed, and where in one block of memory each result lies.

Pure: a list of instructions in, a `Plan` out. Three passes:

    prune      drop what no output depends on
    take over  the instruction that reads a result last writes its own on top of it, if its kernel can (`reuse`)
    pack       buffers that are in use at different times share addresses

In use is a buffer from the instruction that writes it to the last one that reads it or a view of it. Since the backward
pass stands in the same list, what it needs of the forward pass is kept by the same rule and no other.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from thalweg_worker.autodiff.chain import Instruction
from thalweg_worker.autodiff.tensor import Tensor

ALIGNMENT = 64  # bytes: a cache line, and the widest vector register


@dataclass(frozen=True, kw_only=True)
class Plan:
    """instructions: those that are needed, in order
    home:   slot of a tensor that an instruction writes (or needs as scratch) to the slot of the tensor in whose memory
            it lies; that may be a pinned one
    offset: slot of a home that is not pinned to its place in the arena, in bytes
    nbytes: size of the arena
    """

    instructions: list[Instruction]
    home: dict[int, int]
    offset: dict[int, int]
    nbytes: int


def plan(instructions: Sequence[Instruction], outputs: Collection[Tensor], pinned: Collection[int]) -> Plan:
    """Plan the memory of a chain.

    outputs: tensors whose value must be there at the end
    pinned:  slots of tensors that lie in memory of the caller's (gradients), each of which is an output too
    """
    needed = prune(instructions, outputs)
    last_read = {output.root.slot: len(needed) for output in outputs}
    for t, instruction in reversed(list(enumerate(needed))):
        for x in instruction.inputs:
            last_read.setdefault(x.root.slot, t)
    home = take_over(needed, last_read)

    spans: dict[int, tuple[int, int, int]] = {}  # home: bytes, first and last instruction that use it
    for t, instruction in enumerate(needed):
        for x in (instruction.out, *instruction.scratch):
            place = home[x.slot]
            if place not in pinned:
                _, begin, end = spans.get(place, (0, t, t))
                spans[place] = x.nbytes, begin, max(end, last_read.get(x.slot, t))
    offset, nbytes = pack(spans)
    return Plan(instructions=needed, home=home, offset=offset, nbytes=nbytes)


def prune(instructions: Sequence[Instruction], outputs: Collection[Tensor]) -> list[Instruction]:
    """The instructions on which `outputs` depend."""
    wanted = {output.root.slot for output in outputs}
    needed = []
    for instruction in reversed(instructions):
        if instruction.out.slot in wanted:
            wanted.update(x.root.slot for x in instruction.inputs)
            needed.append(instruction)
    return needed[::-1]


def take_over(instructions: Sequence[Instruction], last_read: dict[int, int]) -> dict[int, int]:
    """In whose memory each result lies: its own, or that of a later result which takes its memory over.

    Walked backwards, so that a sum of gradients that ends in pinned memory is there from its first term on.
    """
    home: dict[int, int] = {}
    for t, instruction in reversed(list(enumerate(instructions))):
        out = instruction.out
        home.setdefault(out.slot, out.slot)
        home.update((x.slot, x.slot) for x in instruction.scratch)
        for i in instruction.reuse:
            x = instruction.inputs[i]
            if last_read[x.root.slot] == t and _fits(x, instruction):
                home[x.root.slot] = home[out.slot]
                break
    return home


def _fits(x: Tensor, instruction: Instruction) -> bool:
    """Whether each element of the result lies where the same element of `x` does, and of every input of that memory."""
    out = instruction.out
    same = [y for y in instruction.inputs if y.root is x.root]
    return x.root.computed and x.dtype == out.dtype and all(y.dense and y.shape == out.shape for y in same)


def pack(spans: dict[int, tuple[int, int, int]]) -> tuple[dict[int, int], int]:
    """Offsets of buffers of (bytes, first, last) so that those in use at the same time do not overlap.

    Largest first, each at the lowest offset that is free for its whole time.
    Source: "greedy by size" of Pisarchyk and Lee, "Efficient Memory Management for Deep Neural Net Inference", 2020.
    """
    offsets: dict[int, int] = {}
    placed: list[tuple[int, int, int, int]] = []  # offset, end, first, last; by offset
    for slot, (nbytes, first, last) in sorted(spans.items(), key=lambda item: (-item[1][0], item[0])):
        size = -(-nbytes // ALIGNMENT) * ALIGNMENT
        offset = 0
        for begin, end, other_first, other_last in placed:
            if first <= other_last and other_first <= last:
                if begin - offset >= size:
                    break
                offset = max(offset, end)
        offsets[slot] = offset
        placed.append((offset, offset + size, first, last))
        placed.sort()
    return offsets, max((end for _, end, _, _ in placed), default=0)
