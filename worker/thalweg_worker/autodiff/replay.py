"""Replaying: a planned chain as a flat list of calls on arrays.

`arrays[slot]` is the array of each tensor. Results of instructions, and views of them, are made once, in one block of
memory. Leaves and destinations belong to the caller. They are bound to a program, which makes the views of them (a view
costs no copy), and lets go of with the `Bound`: a program holds nothing of the caller's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

import numpy as np

from thalweg_worker.autodiff import namespace
from thalweg_worker.autodiff.chain import Chain, Kernel
from thalweg_worker.autodiff.operands import copy
from thalweg_worker.autodiff.plan import Plan, plan
from thalweg_worker.autodiff.schedule import Segment, schedule
from thalweg_worker.autodiff.tensor import Layout, Tensor

# Elements that a ufunc may copy at a time. With its default, 8192, NumPy 2.4 copies a row that is broadcast over a
# matrix again and again: (128, 4096) + (4096,) takes 12 times as long. Few, so that nothing large is allocated.
BUFFER_SIZE = 1024

Step = tuple[Kernel, Callable[[list[Any]], tuple[Any, ...]]]  # what to call, and how to get its arguments
Call = tuple[Callable[..., Any], tuple[Any, ...]]  # what to call, and with what
Hook = Callable[[str, int], None]  # called with a parameter's name and an element, counted in the flat array


@dataclass(frozen=True, kw_only=True)
class Destination:
    """Memory of the caller's in which `tensor` is computed: the caller's array, seen through `undo`."""

    tensor: Tensor
    undo: tuple[Layout, ...]

    def of(self, array: Any) -> Any:
        for layout in self.undo:
            array = layout(array)
        return array


def destination(result: Tensor, taken: Iterable[Tensor]) -> Destination:
    """How `result` gets into a C-contiguous array of the caller's.

    Where it is a view that can be undone, as the gradient of a reshaped parameter is, its root is computed right there.
    Else, or where the root is in `taken` by another destination, a copy is recorded.
    """
    undo: list[Layout] = []
    x, whole = result, np.empty(result.shape, np.bool_)
    part = whole
    while x.base is not None and x.undo is not None:
        undo.append(x.undo)
        part = x.undo(part)
        x = x.base
    there = part is whole or (part.flags.c_contiguous and np.may_share_memory(part, whole))
    if there and x.computed and not any(x is other for other in taken):
        return Destination(tensor=x, undo=tuple(undo))
    return Destination(tensor=copy(result), undo=())


class Program:
    """A chain that is ready to run.

    leaves:       tensors whose arrays are handed in, in this order
    outputs:      tensors whose arrays a run returns; they are valid until the next run
    destinations: what is computed in arrays handed in with the leaves, by name
    parameters:   the leaves that a run asks for before it reads them, by name

    All results lie in `arena`, one block of memory (uint8). Not thread-safe: runs share it.
    """

    def __init__(
        self,
        chain: Chain,
        leaves: Sequence[Tensor],
        outputs: Sequence[Tensor],
        destinations: Mapping[str, Destination],
        parameters: Mapping[str, Tensor],
    ) -> None:
        self._leaves = [x.slot for x in leaves]
        self._outputs = [x.slot for x in outputs]
        self._destinations = destinations
        pinned = {d.tensor.slot: name for name, d in destinations.items()}
        memory = plan(chain.instructions, [*outputs, *(d.tensor for d in destinations.values())], pinned)
        self._arrays: list[Any] = [None] * len(chain.tensors)  # None: of the caller's memory, or not needed
        for slot, constant in chain.constants.items():
            self._arrays[slot] = constant
        self.arena = namespace.arena(chain.xp, memory.nbytes)
        self._tenants = self._lay_out(memory)
        self._views = self._look_at([*outputs, *(x for i in memory.instructions for x in i.inputs)])
        self._segments = [(s.asks, _steps(s), s.tell) for s in schedule(memory, pinned, parameters)]

    def _lay_out(self, memory: Plan) -> list[tuple[int, int, tuple[int, ...]]]:
        """Make the arrays in the arena; return (slot, whose, shape) of results that lie in pinned memory."""
        tenants = []
        for instruction in memory.instructions:
            for x in (instruction.out, *instruction.scratch):
                home = memory.home[x.slot]
                if home in memory.offset:
                    space = self.arena[memory.offset[home] :][: x.nbytes]
                    self._arrays[x.slot] = space.view(x.dtype).reshape(x.shape)
                elif home != x.slot:
                    tenants.append((x.slot, home, x.shape))
        return tenants

    def _look_at(self, tensors: Iterable[Tensor]) -> list[tuple[int, int, Layout]]:
        """Make the views of lasting arrays among `tensors`; return (slot, base's slot, layout) of the other views."""
        views: dict[int, Tensor] = {}
        for x in tensors:
            while x.base is not None:
                views[x.slot] = x
                x = x.base
        others = []
        for slot, x in sorted(views.items()):  # a base comes before its views
            assert x.base is not None
            assert x.layout is not None
            base = self._arrays[x.base.slot]
            if base is None:
                others.append((slot, x.base.slot, x.layout))
            else:
                self._arrays[slot] = x.layout(base)
        return others

    def bind(
        self,
        leaves: Sequence[Any],
        into: Mapping[str, Any],
        on_ready: Hook | None = None,
        before_read: Hook | None = None,
    ) -> Bound:
        """This program on these very arrays: `leaves`, and the destinations' arrays `into`.

        A hook is one more call among those of the kernels, so where there is none it costs nothing.
        """
        arrays = self._arrays.copy()
        for slot, leaf in zip(self._leaves, leaves, strict=True):
            arrays[slot] = leaf
        for name, place in self._destinations.items():
            arrays[place.tensor.slot] = place.of(into[name])
        for slot, home, shape in self._tenants:
            arrays[slot] = arrays[home].reshape(shape)
        for slot, base, layout in self._views:
            arrays[slot] = layout(arrays[base])
        calls: list[Call] = []
        for asks, steps, tell in self._segments:
            if before_read is not None:
                calls += [(before_read, ask) for ask in asks]
            calls += [(kernel, arguments(arrays)) for kernel, arguments in steps]
            if on_ready is not None and tell is not None:
                calls.append((on_ready, tell))
        return Bound(calls=calls, outputs=[arrays[slot] for slot in self._outputs])


@dataclass(frozen=True, kw_only=True, eq=False)
class Bound:
    """A program and the arrays that it works on.

    calls:   the kernels, and the hooks, in order
    outputs: arrays of the outputs
    """

    calls: list[Call]
    outputs: list[Any]

    def run(self) -> list[Any]:
        """Compute the outputs and the destinations from what the leaves hold now."""
        buffer_size = np.setbufsize(BUFFER_SIZE)
        try:
            # Overflow and NaN go on as IEEE 754 says; whoever gets the loss and the gradient looks at them.
            with np.errstate(all="ignore"):
                for function, arguments in self.calls:
                    function(*arguments)
            return self.outputs
        finally:
            np.setbufsize(buffer_size)


def _steps(segment: Segment) -> list[Step]:
    return [(kernel, _getter([x.slot for x in (*i.inputs, i.out, *i.scratch)])) for kernel, i in segment.kernels]


def _getter(slots: list[int]) -> Callable[[list[Any]], tuple[Any, ...]]:
    """`itemgetter`, which gives a tuple also for one slot."""
    return itemgetter(*slots) if len(slots) > 1 else lambda arrays: (arrays[slots[0]],)
