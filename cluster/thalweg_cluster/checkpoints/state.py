"""What is in a checkpoint, as arrays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from thalweg_cluster.rules import Slot
from thalweg_proto.layout import Layout

Array = NDArray[np.float32]
RESIDUAL, WORKER = "residual.", "worker."
"""What stands before names in `of_host`."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ShardState:
    """Elements [begin, end) of the flat vector at one version, as their owner has them. A copy: it does not change.

    parameters: (end - begin,)
    slots:      the update rule's state by name, each (end - begin,)
    updates:    how often the rule was applied to them
    of_host:    what belongs to the host, not to the shard: "residual." and the name of a block (hosts/encoding.py),
                "worker.", its rank and the name of an array of its own rule's state (local steps)
    names:      (step, part) of the pushes from outside that were applied
    """

    begin: int
    end: int
    parameters: Array
    slots: Mapping[str, Array]
    updates: int
    of_host: Mapping[str, Array] = field(default_factory=dict)
    names: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainingState:
    """What a run starts from: version 0 of a new one, or that of a checkpoint.

    version:    of the parameters; the first one that is made is the next
    step:       how many steps were taken to get there
    parameters: (size,)
    slots:      the update rule's state by name, each (size,); empty: what the rule begins with
    updates:    how often the rule was applied
    of_host:    by host, as in ShardState; empty where there was another number of hosts
    names:      by host, likewise; with another number all are host 0's
    """

    version: int
    step: int
    parameters: Array
    slots: Mapping[str, Array]
    updates: int
    of_host: Mapping[int, Mapping[str, Array]] = field(default_factory=dict)
    names: Mapping[int, tuple[tuple[int, int], ...]] = field(default_factory=dict)

    def residuals(self, host: int) -> dict[str, Array]:
        """What the encoder of a host goes on from."""
        arrays = self.of_host.get(host, {})
        return {name.removeprefix(RESIDUAL): array for name, array in arrays.items() if name.startswith(RESIDUAL)}

    def slot(self, slot: Slot) -> Array | float:
        """What an array of the rule's state begins with: an array (size,), or one number for all."""
        return self.slots.get(slot.name, slot.initial_value)

    @classmethod
    def new(cls, parameters: Array) -> TrainingState:
        """Of a run that begins."""
        return cls(version=0, step=0, parameters=parameters, slots={}, updates=0)


def fill_state(array: Array, slot: Slot, start: TrainingState, layout: Layout) -> None:
    """Puts into `array` (size,) what a run that starts from `start` begins with; it is all zero before.

    The gaps between tensors stay zero: the arrays of the state take turns with gradients, whose gaps nobody writes.
    """
    value = start.slot(slot)
    if isinstance(value, float):
        for view in layout.views(array).values():
            view.fill(value)
    else:
        array[...] = value
