"""RMSProp: gradients divided by a running root mean square."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from thalweg_cluster.rules.rule import Block, Blocks, BlockUpdate, Rule, Slot, l2_decay, scalar


@dataclass(frozen=True, kw_only=True)
class RMSProp(Rule):
    """torch.optim.RMSprop.

        g = gradient + weight_decay * p
        v = alpha * v + (1 - alpha) * g * g
        plain:     d = sqrt(v) + eps                        epsilon stands outside the root
        centered:  a = a + (1 - alpha) * (g - a);  d = sqrt(max(v - a * a, 0)) + eps
        momentum = 0:  p = p - learning_rate * g / d
        momentum > 0:  b = momentum * b + g / d;  p = p - learning_rate * b

    The slots `square_avg`, `grad_avg` (centered only) and `momentum_buffer` (momentum > 0 only) are v, a and b; all
    start at 0. The max is ours: rounding can push v - a * a below 0, where torch's root is NaN.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.optim.RMSprop.html; Tieleman and Hinton, "Lecture 6.5",
    Coursera 2012; centered: Graves, "Generating sequences with recurrent neural networks", arXiv:1308.0850, 2013.
    """

    alpha: float = 0.99
    eps: float = 1e-8
    centered: bool = False
    momentum: float = 0.0
    weight_decay: float = 0.0

    @property
    def slots(self) -> tuple[Slot, ...]:
        slots = [Slot(name="square_avg", hides=True)]
        if self.centered:
            slots.append(Slot(name="grad_avg", hides=True))  # the max turns v - inf into 0
        if self.momentum > 0.0:
            slots.append(Slot(name="momentum_buffer"))
        return tuple(slots)

    @property
    def scratch(self) -> int:
        return 1

    def block_update(self, step: int, learning_rate: float) -> BlockUpdate:
        rate, alpha, rest = scalar(learning_rate), scalar(self.alpha), scalar(1.0 - self.alpha)
        eps, momentum, zero = scalar(self.eps), scalar(self.momentum), scalar(0.0)
        decay, centered, heavy = l2_decay(self.weight_decay), self.centered, self.momentum > 0.0

        def update(params: Block, gradient: Block, state: Blocks, new_state: Blocks, scratch: Blocks) -> None:
            square_avg, work = new_state[0], scratch[0]
            decay(params, gradient, work)
            np.multiply(gradient, gradient, work)
            np.multiply(work, rest, work)
            np.multiply(state[0], alpha, square_avg)
            np.add(square_avg, work, square_avg)
            if centered:
                grad_avg = new_state[1]
                np.subtract(gradient, state[1], work)
                np.multiply(work, rest, work)
                np.add(state[1], work, grad_avg)
                np.multiply(grad_avg, grad_avg, work)
                np.subtract(square_avg, work, work)
                np.maximum(work, zero, out=work)  # NaN stays NaN
                np.sqrt(work, work)
            else:
                np.sqrt(square_avg, work)
            np.add(work, eps, work)
            np.divide(gradient, work, gradient)
            if heavy:
                buffer = new_state[-1]
                np.multiply(state[-1], momentum, buffer)
                np.add(buffer, gradient, buffer)
                np.multiply(buffer, rate, gradient)
            else:
                np.multiply(gradient, rate, gradient)
            np.subtract(params, gradient, gradient)

        return update
