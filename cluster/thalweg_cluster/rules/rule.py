"""What an update rule is.

The rules
 1. A rule is a frozen set of hyper-parameters. It holds no arrays: its state lives in slots, one float32 array of the
    parameters' length for each, which the caller owns and which start at the slot's initial value.
 2. `block_update(step, learning_rate)` fixes one step: its scalars are computed once, in float64, then rounded to
    float32. What it returns is applied to one block after another, in any order, by any thread.
 3. Applying it allocates nothing and computes element by element in float32, so the result does not depend on how the
    vector is cut into blocks.
 4. NaN or infinity in the gradient or in a slot becomes NaN or infinity in the new parameter, so that the new
    parameters alone tell whether a step is sound. An infinite denominator is the exception: g / inf = 0 freezes
    the parameter and hides the infinity. Slots that can do so are marked `hides`, and the update pass checks them too.
 5. Formulas, initial state and the place of epsilon are those of torch.optim. Where the same value can be had with
    fewer passes over memory it is: float32 results agree with torch.optim to 1e-5, not to the bit.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Block = NDArray[np.float32]
Blocks = Sequence[Block]

BlockUpdate = Callable[[Block, Block, Blocks, Blocks, Blocks], None]
"""update(params, gradient, state, new_state, scratch), all float32 of shape (n,).

params:    version t of the parameters; only read
gradient:  the gradient at version t; version t + 1 takes its place
state:     at version t, one array for each slot of the rule, in its order; only read
new_state: at version t + 1, likewise; may be the arrays of `state`
scratch:   at least `rule.scratch` arrays; overwritten
"""


@dataclass(frozen=True, kw_only=True)
class Slot:
    """One state array of a rule.

    name:          as torch.optim names it in its state dictionary
    initial_value: what every element is before step 0
    hides:         an infinity in it need not show in the new parameters (rule 4)
    """

    name: str
    initial_value: float = 0.0
    hides: bool = False


class Rule(ABC):
    """An update rule; see the rules of this module."""

    @property
    @abstractmethod
    def slots(self) -> tuple[Slot, ...]:
        """The state arrays, in the order in which `block_update` expects them."""

    @property
    @abstractmethod
    def scratch(self) -> int:
        """How many scratch blocks `block_update` needs."""

    @abstractmethod
    def block_update(self, step: int, learning_rate: float) -> BlockUpdate:
        """The update of step `step` (from 0) at `learning_rate`, ready to be applied to blocks."""


def scalar(value: float) -> NDArray[np.float32]:
    """`value` rounded to a float32 array of shape ().

    With NumPy 1 and 2 alike (NEP 50) it leaves a float32 operation float32, and it is 0.4 us a call quicker than a
    np.float32, which NumPy would convert each time.
    """
    return np.array(value, dtype=np.float32)


def l2_decay(weight_decay: float) -> Callable[[Block, Block, Block], None]:
    """Returns decay(params, gradient, scratch): gradient += weight_decay * params, and nothing where that is 0."""
    if weight_decay == 0.0:
        return lambda params, gradient, scratch: None
    factor = scalar(weight_decay)

    def decay(params: Block, gradient: Block, scratch: Block) -> None:
        np.multiply(params, factor, scratch)
        np.add(gradient, scratch, gradient)

    return decay
