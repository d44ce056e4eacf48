"""Adagrad: each parameter's rate falls with the squares of its past gradients."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from thalweg_cluster.rules.rule import Block, Blocks, BlockUpdate, Rule, Slot, l2_decay, scalar


@dataclass(frozen=True, kw_only=True)
class Adagrad(Rule):
    """torch.optim.Adagrad.

        rate_t = learning_rate / (1 + t * lr_decay)         t counts from 0
        g = gradient + weight_decay * p
        s = s + g * g                                       s starts at initial_accumulator_value
        p = p - rate_t * g / (sqrt(s) + eps)

    The slot `sum` is s. Source: https://docs.pytorch.org/docs/stable/generated/torch.optim.Adagrad.html;
    Duchi, Hazan and Singer, "Adaptive subgradient methods for online learning and stochastic optimization", JMLR 2011.
    """

    lr_decay: float = 0.0
    weight_decay: float = 0.0
    initial_accumulator_value: float = 0.0
    eps: float = 1e-10

    @property
    def slots(self) -> tuple[Slot, ...]:
        return (Slot(name="sum", initial_value=self.initial_accumulator_value, hides=True),)

    @property
    def scratch(self) -> int:
        return 1

    def block_update(self, step: int, learning_rate: float) -> BlockUpdate:
        rate = scalar(learning_rate / (1.0 + step * self.lr_decay))
        eps, decay = scalar(self.eps), l2_decay(self.weight_decay)

        def update(params: Block, gradient: Block, state: Blocks, new_state: Blocks, scratch: Blocks) -> None:
            (old,), (total,) = state, new_state
            (work, *_) = scratch
            decay(params, gradient, work)
            np.multiply(gradient, gradient, work)
            np.add(old, work, total)
            np.sqrt(total, work)
            np.add(work, eps, work)
            np.divide(gradient, work, gradient)
            np.multiply(gradient, rate, gradient)
            np.subtract(params, gradient, gradient)

        return update
