"""Adam, and Adam with decoupled weight decay (AdamW)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from thalweg_cluster.rules.rule import Block, Blocks, BlockUpdate, Rule, Slot, l2_decay, scalar

_Move = Callable[[Block, Blocks, Blocks, Block], None]


@dataclass(frozen=True, kw_only=True)
class Adam(Rule):
    """torch.optim.Adam(amsgrad=False).

        g = gradient + weight_decay * p
        m = m + (1 - beta1) * (g - m)
        v = beta2 * v + (1 - beta2) * g * g
        p = p - learning_rate / c1 * m / (sqrt(v) / sqrt(c2) + eps),   c1 = 1 - beta1**(t + 1), c2 = 1 - beta2**(t + 1)

    with t from 0. Computed as m / (sqrt(v) + eps * sqrt(c2)) * (learning_rate * sqrt(c2) / c1): the same value, and one
    pass less. The slots `exp_avg` and `exp_avg_sq` are m and v; both start at 0.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.optim.Adam.html; Kingma and Ba, "Adam: a method for
    stochastic optimization", ICLR 2015 (section 2 for the order of the bias corrections).
    """

    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0

    @property
    def slots(self) -> tuple[Slot, ...]:
        return (Slot(name="exp_avg"), Slot(name="exp_avg_sq", hides=True))

    @property
    def scratch(self) -> int:
        return 1

    def block_update(self, step: int, learning_rate: float) -> BlockUpdate:
        decay = l2_decay(self.weight_decay)
        move = self._move(step, learning_rate)

        def update(params: Block, gradient: Block, state: Blocks, new_state: Blocks, scratch: Blocks) -> None:
            decay(params, gradient, scratch[0])
            move(gradient, state, new_state, scratch[0])
            np.subtract(params, gradient, gradient)

        return update

    def _move(self, step: int, learning_rate: float) -> _Move:
        """Returns move(gradient, state, new_state, work).

        It makes the new m and v, and leaves in `gradient` what p must be lowered by.
        """
        beta1, beta2 = self.betas
        root2 = math.sqrt(1.0 - beta2 ** (step + 1))
        rest1, keep2, rest2 = scalar(1.0 - beta1), scalar(beta2), scalar(1.0 - beta2)
        eps, rate = scalar(self.eps * root2), scalar(learning_rate * root2 / (1.0 - beta1 ** (step + 1)))

        def move(gradient: Block, state: Blocks, new_state: Blocks, work: Block) -> None:
            old_avg, old_avg_sq = state
            exp_avg, exp_avg_sq = new_state
            np.subtract(gradient, old_avg, work)
            np.multiply(work, rest1, work)
            np.add(old_avg, work, exp_avg)
            np.multiply(gradient, gradient, gradient)
            np.multiply(gradient, rest2, gradient)
            np.multiply(old_avg_sq, keep2, exp_avg_sq)
            np.add(exp_avg_sq, gradient, exp_avg_sq)
            np.sqrt(exp_avg_sq, work)
            np.add(work, eps, work)
            np.divide(exp_avg, work, gradient)
            np.multiply(gradient, rate, gradient)

        return move


@dataclass(frozen=True, kw_only=True)
class AdamW(Adam):
    """torch.optim.AdamW(amsgrad=False): Adam whose weight decay does not pass through m and v.

        p = p * (1 - learning_rate * weight_decay)
        then as Adam with g = gradient

    torch's default for `weight_decay` is 0.01, and so is ours.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.optim.AdamW.html; Loshchilov and Hutter, "Decoupled
    weight decay regularization", ICLR 2019.
    """

    weight_decay: float = 0.01

    def block_update(self, step: int, learning_rate: float) -> BlockUpdate:
        keep = scalar(1.0 - learning_rate * self.weight_decay)
        move = self._move(step, learning_rate)

        def update(params: Block, gradient: Block, state: Blocks, new_state: Blocks, scratch: Blocks) -> None:
            move(gradient, state, new_state, scratch[0])
            np.multiply(params, keep, scratch[0])
            np.subtract(scratch[0], gradient, gradient)

        return update
