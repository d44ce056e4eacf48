"""Stochastic gradient descent: plain, with momentum, and with Nesterov's momentum."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from thalweg_cluster.rules.rule import Block, Blocks, BlockUpdate, Rule, Slot, l2_decay, scalar


@dataclass(frozen=True, kw_only=True)
class SGD(Rule):
    """Plain gradient descent: torch.optim.SGD(momentum=0).

        g = gradient + weight_decay * p
        p = p - learning_rate * g

    Source: https://docs.pytorch.org/docs/stable/generated/torch.optim.SGD.html
    """

    weight_decay: float = 0.0

    @property
    def slots(self) -> tuple[Slot, ...]:
        return ()

    @property
    def scratch(self) -> int:
        return 1

    def block_update(self, step: int, learning_rate: float) -> BlockUpdate:
        rate, decay = scalar(learning_rate), l2_decay(self.weight_decay)

        def update(params: Block, gradient: Block, state: Blocks, new_state: Blocks, scratch: Blocks) -> None:
            decay(params, gradient, scratch[0])
            np.multiply(gradient, rate, gradient)
            np.subtract(params, gradient, gradient)

        return update


@dataclass(frozen=True, kw_only=True)
class Momentum(Rule):
    """Heavy-ball momentum: torch.optim.SGD(momentum=momentum, dampening=0).

        g = gradient + weight_decay * p
        b = momentum * b + g            b starts at 0, so that step 0 has b = g, as torch has
        p = p - learning_rate * b

    The slot `momentum_buffer` is b. torch's default for `momentum` is 0, which is plain SGD; here it is 0.9.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.optim.SGD.html;
    Sutskever et al., "On the importance of initialization and momentum in deep learning", ICML 2013.
    """

    momentum: float = 0.9
    weight_decay: float = 0.0

    @property
    def slots(self) -> tuple[Slot, ...]:
        return (Slot(name="momentum_buffer"),)

    @property
    def scratch(self) -> int:
        return 1

    def block_update(self, step: int, learning_rate: float) -> BlockUpdate:
        rate, momentum, decay = scalar(learning_rate), scalar(self.momentum), l2_decay(self.weight_decay)

        def update(params: Block, gradient: Block, state: Blocks, new_state: Blocks, scratch: Blocks) -> None:
            (old,), (buffer,) = state, new_state
            decay(params, gradient, scratch[0])
            np.multiply(old, momentum, buffer)
            np.add(buffer, gradient, buffer)
            np.multiply(buffer, rate, gradient)
            np.subtract(params, gradient, gradient)

        return update


@dataclass(frozen=True, kw_only=True)
class Nesterov(Momentum):
    """Nesterov's momentum: torch.optim.SGD(momentum=momentum, nesterov=True).

        g = gradient + weight_decay * p
        b = momentum * b + g            b starts at 0
        p = p - learning_rate * (g + momentum * b)

    The slot `momentum_buffer` is b. Source: as for Momentum.
    """

    def block_update(self, step: int, learning_rate: float) -> BlockUpdate:
        rate, momentum, decay = scalar(learning_rate), scalar(self.momentum), l2_decay(self.weight_decay)

        def update(params: Block, gradient: Block, state: Blocks, new_state: Blocks, scratch: Blocks) -> None:
            (old,), (buffer,) = state, new_state
            decay(params, gradient, scratch[0])
            np.multiply(old, momentum, buffer)
            np.add(buffer, gradient, buffer)
            np.multiply(buffer, momentum, scratch[0])
            np.add(gradient, scratch[0], gradient)
            np.multiply(gradient, rate, gradient)
            np.subtract(params, gradient, gradient)

        return update
